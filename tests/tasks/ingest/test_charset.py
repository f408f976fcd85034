"""Charsets: the web's rules, and detection in a table of languages, legacy encodings and lengths."""

import pytest

from tasks.ingest.charset import decode

SENTENCES = {
    "French": (
        "cp1252",
        "L’été dernier, nous avons visité un château près de la forêt où les élèves étaient très animés. ",
    ),
    "Portuguese": (
        "cp1252",
        "A população não tinha informações sobre a situação econômica da região até às três da manhã. ",
    ),
    "Spanish": (
        "cp1252",
        "El niño pequeño corrió detrás del camión mañana y después comió piña con azúcar en el jardín. ",
    ),
    "German": ("cp1252", "Die Bäcker öffnen früh, und für größere Bestellungen müssen Gäste höflich vorher anrufen. "),
    "Swedish": ("cp1252", "Många människor åker till sjön på sommaren för att äta räkor och dricka öl på bryggan. "),
    "Italian": ("cp1252", "La città è più bella perché c’è la libertà, così però nessuno saprà già che verità sarà. "),
    "Danish": ("cp1252", "På øen går børnene på æblejagt, når søerne fryser, og fædrene køber røde pølser på torvet. "),
    "Polish": (
        "iso8859-2",
        "Żółw i źrebię poszły na łąkę, gdzie rosły piękne kwiaty, a później wróciły do swoich gości. ",
    ),
    "Czech": ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy, když se večer vracel domů přes zasněžené údolí. "),
    "Hungarian": ("cp1250", "Az őszi erdőben sűrű köd ült, és a fűzfák között hűvös szél fújt, miközben öt őz ivott. "),
    "Russian": ("cp1251", "Старый маяк в устье реки построили рыбаки, которые больше не хотели терять свои лодки. "),
    "Russian, KOI8": (
        "koi8-r",
        "Старый маяк в устье реки построили рыбаки, которые больше не хотели терять свои лодки. ",
    ),
    "Ukrainian, KOI8": (
        "koi8-u",
        "Старий маяк у гирлі річки збудували рибалки, які більше не хотіли втрачати свої човни. ",
    ),
    "Greek": ("iso8859-7", "Ο παλιός φάρος στις εκβολές του ποταμού χτίστηκε από ψαράδες που έχαναν τις βάρκες τους. "),
    "Turkish": (
        "cp1254",
        "Nehrin ağzındaki eski deniz fenerini artık teknelerini kaybetmek istemeyen balıkçılar yaptı. ",
    ),
    "Hebrew": ("cp1255", "המגדלור הישן בשפך הנהר נבנה על ידי דייגים שלא רצו עוד לאבד את הסירות שלהם בים. "),
    "Arabic": ("cp1256", "بنى الصيادون المنارة القديمة عند مصب النهر لأنهم لم يعودوا يريدون أن يفقدوا قواربهم. "),
    "Lithuanian": (
        "cp1257",
        "Seną švyturį upės žiotyse pastatė žvejai, kurie nebenorėjo prarasti savo laivų ir žūti jūroje. ",
    ),
    "Thai": ("cp874", "ประภาคารเก่าที่ปากแม่น้ำสร้างโดยชาวประมงที่ไม่ต้องการสูญเสียเรือของพวกเขาอีกต่อไป "),
    "Chinese": ("gb18030", "河口的旧灯塔是由不想再失去船只的渔民建造的，他们用手把每一块石头搬上山。"),
    "Chinese, Big5": ("big5", "河口的舊燈塔是由不想再失去船隻的漁民建造的，他們用手把每一塊石頭搬上山。"),
    "Japanese": ("cp932", "河口の古い灯台は、もう船を失いたくない漁師たちによって建てられました。"),
    "Japanese, EUC": ("euc_jp", "河口の古い灯台は、もう船を失いたくない漁師たちによって建てられました。"),
    "Korean": ("cp949", "강 하구의 오래된 등대는 더 이상 배를 잃고 싶지 않은 어부들이 지었습니다. "),
}


@pytest.mark.parametrize("announced", ["text/html", "text/html; charset=utf-8"])
@pytest.mark.parametrize("num_characters", [60, 200, 1000, 5000])
@pytest.mark.parametrize("language", SENTENCES)
def test_decode_detects_the_charset(language: str, num_characters: int, announced: str) -> None:
    if (language, num_characters) == ("Hungarian", 60):
        pytest.xfail("ten letters beyond ASCII, all of which windows-1252 has too, as others")
    charset, sentence = SENTENCES[language]
    text = (sentence * 100)[:num_characters].strip()
    page = f"<html><head><title>x</title></head><body><p>{text}</p></body></html>"
    assert text in decode(page.encode(charset), announced)


@pytest.mark.parametrize(
    ("head", "content_type", "charset"),
    [
        ('<meta charset="x-user-defined">', "text/html", "cp1252"),
        ('<meta charset="utf-16">', "text/html", "utf-8"),
        ("<meta http-equiv=Content-Type content='text/html; charset=windows-1250'>", "text/html", "cp1250"),
        ('<meta content="text/html;charset=iso-8859-2" http-equiv="content-type">', "text/html", "iso8859-2"),
        ('<meta charset="windows-1250">', "text/html; charset=windows-1252", "cp1252"),
        ('<!-- <meta charset="koi8-r"> --><meta charset=latin1>', "text/html", "cp1252"),
        (f"<script>{'x' * 2000}</script><meta charset=windows-1250>", "text/html", "cp1250"),
        ('<?xml version="1.0" encoding="windows-1250"?>', "text/html", "cp1250"),
        ("", "text/html; charset=utf-16", "utf-16-le"),
        ("", "text/html; charset=utf-16be", "utf-16-be"),
        ("", "text/html", "utf-16-le"),
        ("", "text/html; charset=iso-8859-1", "utf-8"),
    ],
)
def test_decode_follows_header_and_meta(head: str, content_type: str, charset: str) -> None:
    page = f"{head}<html><body>Château, né, öß, ä — “d” á í é</body></html>".replace("â", "á").replace("—", "-")
    page = page.replace("“", '"').replace("”", '"')
    assert decode(page.encode(charset), content_type) == page


@pytest.mark.parametrize("announced", ["text/html", "text/html; charset=utf-8"])
@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("cp1252", "Solo uno dei componenti della banda è stato bloccato: la libertà è più bella."),
        ("cp1252", "L'ajuntament demana vigilància, segons la Diputació"),
        ("cp1252", "Tar man denna malt kan man så producera whisky."),
        ("cp1252", "Það er samþykki fyrir bílastæðum og verðlaun fyrir hugmynd sem gefur fyrirheit."),
        ("iso8859-2", "V praxi se ukázalo, že hráčům činí určité potíže rozhodnout, jestli umřeli."),
        ("cp1250", "V malých rybnících byli také pstruzi, chov včel byl na třech místech, kdy můžete také."),
        ("cp1250", "Z pierwszego miejsca awansował Manchester. Dziś Muzeum jest już otwarte, więcej później."),
        ("cp1251", "Гэта Людміла Іванаўна Ярашэвіч, Жанна Якаўлеўна Лушчык, Людміла Васільеўна Асіпчук."),
        ("iso8859-7", "Βλέπω και τον θείο Γαβριήλ, με ήρεμη μορφή, γαλήνιο σ’ όλα τα μέλη. Άλλα λέει."),
        ("cp1253", "Βλέπω και τον θείο Γαβριήλ, με ήρεμη μορφή, γαλήνιο σ’ όλα τα μέλη. Άλλα λέει."),
        ("iso2022_jp", "河口の古い灯台は、もう船を失いたくない漁師たちによって建てられました。"),
    ],
)
def test_charset_of_one_sentence(charset: str, text: str, announced: str) -> None:
    page = f"<html><head><title>x</title></head><body><p>{text}</p></body></html>"
    assert decode(page.encode(charset), announced) == page
