"""The other languages of the sample web: small grammars of German, French, Spanish and Russian, and the labels around a page's text.

Reads nothing and writes nothing. A sentence is a time, a subject, a verb with its object, a place and sometimes a reason,
each drawn from a table, in the word order of the language.
"""

import random
from dataclasses import dataclass

from tasks.sample_web.tables import capitalize, words


@dataclass(frozen=True)
class Labels:
    """What a site prints around its text."""

    home: str
    about: str
    contact: str
    search: str
    cookies: str
    accept: str
    more: str
    comments: str
    related: str
    share: str
    newsletter: str
    privacy: str
    terms: str
    rights: str


@dataclass(frozen=True)
class Grammar:
    """Tables of a language. `patterns` put them in order; verbs take any subject (third person singular)."""

    patterns: tuple[str, ...]
    times: tuple[str, ...]
    subjects: tuple[str, ...]
    verbs: tuple[str, ...]
    objects: tuple[str, ...]
    places: tuple[str, ...]
    reasons: tuple[str, ...]
    sections: tuple[str, ...]


def write_foreign(language: str, rng: random.Random) -> tuple[str, tuple[str, ...]]:
    """A title and two to four paragraphs, 90 to 200 words in all."""
    grammar = GRAMMARS[language]
    num_words = rng.randint(95, 175)
    sentences: list[str] = []
    while sum(len(sentence.split()) for sentence in sentences) < num_words:
        sentences.append(write_sentence(grammar, rng))
    cuts = sorted(rng.sample(range(2, len(sentences) - 1), rng.randint(1, 3)))
    paragraphs = [" ".join(sentences[a:b]) for a, b in zip([0, *cuts], [*cuts, len(sentences)], strict=True)]
    title = f"{rng.choice(grammar.subjects)} {rng.choice(grammar.verbs)} {rng.choice(grammar.objects)}"
    return capitalize(title), tuple(paragraphs)


def write_sentence(grammar: Grammar, rng: random.Random) -> str:
    """A sentence of a language."""
    slots = {
        "time": rng.choice(grammar.times),
        "subject": rng.choice(grammar.subjects),
        "verb": rng.choice(grammar.verbs),
        "object": rng.choice(grammar.objects),
        "place": rng.choice(grammar.places),
        "reason": rng.choice(grammar.reasons),
    }
    return capitalize(rng.choice(grammar.patterns).format(**slots)) + "."


ROMANCE_PATTERNS = (
    "{time}, {subject} {verb} {object} {place}",
    "{subject} {verb} {object} {place}, {reason}",
    "{place}, {subject} {verb} {object}",
    "{time}, {subject} {verb} {object}, {reason}",
)

GRAMMARS = {
    "de": Grammar(
        patterns=(
            "{time} {verb} {subject} {object} {place}",
            "{subject} {verb} {time} {object} {place}",
            "{place} {verb} {subject} {object}, {reason}",
            "{time} {verb} {subject} {object}, {reason}",
        ),
        times=words(
            "jeden Morgen | am späten Abend | im Frühling | seit vielen Jahren | nach dem Regen | am Sonntag | kurz vor Mitternacht"
            " | in der Woche nach Ostern | während der Ernte | heute | im Herbst | früher als sonst"
        ),
        subjects=words(
            "die Bürgermeisterin | der alte Müller | das junge Mädchen | die Bäckerin aus der Südstadt | der Fährmann"
            " | die neue Ärztin | der Lehrer der Grundschule | die Großmutter | der Gärtner | mein Nachbar | die Reisegruppe"
        ),
        verbs=words(
            "öffnet | sucht | verkauft | zeichnet | beschreibt | repariert | bewundert | findet | zählt | säubert | beobachtet"
        ),
        objects=words(
            "die schmale Brücke | einen großen Korb voller Äpfel | das Tor zum Schloss | die Bücher über Vögel | den Weg zur Mühle"
            " | ein Stück von der alten Mauer | die Straßenbahn | das Fenster zum Hof | einen Brief aus Übersee | die Glocken"
        ),
        places=words(
            "am Fluss | hinter der Kirche | auf dem Marktplatz | in der Nähe des Bahnhofs | unter den Bäumen | vor dem Rathaus"
            " | auf der anderen Seite der Stadt | im Garten des Museums | an der Küste | zwischen den Häusern"
        ),
        reasons=words(
            "weil das Wetter schön ist | obwohl niemand darum gebeten hat | damit die Kinder etwas lernen"
            " | denn die Zeit ist knapp | während die anderen noch schlafen | wie es in der Zeitung steht"
            " | und alle freuen sich darüber | aber das hört man nur selten"
        ),
        sections=words("Stadt | Kultur | Reisen | Küche | Wetter | Vereine | Geschichte | Leserbriefe | Sport"),
    ),
    "fr": Grammar(
        patterns=ROMANCE_PATTERNS,
        times=words(
            "chaque matin | à la tombée de la nuit | au début de l'été | depuis longtemps | après la pluie | le dimanche"
            " | peu avant minuit | pendant les vendanges | cette année encore | aujourd'hui | en automne"
        ),
        subjects=words(
            "la boulangère du village | le maire | une vieille dame | le garde forestier | la nouvelle institutrice | mon frère aîné"
            " | le pêcheur | la directrice du musée | un voyageur pressé | le facteur | l'élève le plus curieux"
        ),
        verbs=words(
            "regarde | cherche | répare | dessine | achète | décrit | retrouve | protège | nettoie | présente | connaît bien"
        ),
        objects=words(
            "le vieux pont de pierre | un panier de pommes | la clé du château | les livres sur les oiseaux | le chemin du moulin"
            " | une lettre venue de loin | les fenêtres de la mairie | la carte de la forêt | un bateau à voiles | les façades fleuries"
        ),
        places=words(
            "au bord de la rivière | derrière l'église | sur la place du marché | près de la gare | sous les tilleuls"
            " | devant la mairie | de l'autre côté de la ville | dans le jardin du musée | sur la côte | à l'entrée du théâtre"
        ),
        reasons=words(
            "parce qu'il fait beau | même si personne ne l'a demandé | pour que les enfants apprennent quelque chose"
            " | car le temps presse | pendant que les autres dorment encore | comme l'écrit le journal"
            " | et tout le monde s'en réjouit | mais on n'en parle guère"
        ),
        sections=words("Ville | Culture | Voyages | Cuisine | Météo | Associations | Histoire | Courrier | Sports"),
    ),
    "es": Grammar(
        patterns=ROMANCE_PATTERNS,
        times=words(
            "cada mañana | al caer la noche | a principios del verano | desde hace muchos años | después de la lluvia | los domingos"
            " | poco antes de la medianoche | durante la cosecha | este año también | hoy | en otoño"
        ),
        subjects=words(
            "la panadera del pueblo | el alcalde | una anciana | el guardabosques | la nueva maestra | mi hermano mayor"
            " | el pescador | la directora del museo | un viajero con prisa | el cartero | la niña más curiosa"
        ),
        verbs=words(
            "mira | busca | arregla | dibuja | compra | describe | encuentra | protege | limpia | enseña | conoce bien"
        ),
        objects=words(
            "el viejo puente de piedra | una cesta de manzanas | la llave del castillo | los libros sobre pájaros"
            " | el camino del molino | una carta que llegó de lejos | las ventanas del ayuntamiento | el mapa de la montaña"
            " | un barco de vela | los balcones llenos de flores"
        ),
        places=words(
            "a la orilla del río | detrás de la iglesia | en la plaza del mercado | cerca de la estación | bajo los árboles"
            " | delante del ayuntamiento | al otro lado de la ciudad | en el jardín del museo | en la costa | junto al teatro"
        ),
        reasons=words(
            "porque hace buen tiempo | aunque nadie se lo ha pedido | para que los niños aprendan algo | pues queda poco tiempo"
            " | mientras los demás todavía duermen | según cuenta el periódico | y todos se alegran | pero casi nadie lo sabe"
        ),
        sections=words("Ciudad | Cultura | Viajes | Cocina | El tiempo | Asociaciones | Historia | Cartas | Deportes"),
    ),
    "ru": Grammar(
        patterns=(
            "{time} {subject} {verb} {object} {place}",
            "{subject} {verb} {object} {place}, {reason}",
            "{place} {subject} {verb} {object}",
            "{time} {subject} {verb} {object}, {reason}",
        ),
        times=words(
            "каждое утро | поздно вечером | весной | уже много лет | после дождя | по воскресеньям | незадолго до полуночи"
            " | во время жатвы | в этом году | сегодня | осенью | раньше обычного"
        ),
        subjects=words(
            "новая учительница | старый мельник | директор музея | девочка из соседнего дома | рыбак | почтальон"
            " | мой старший брат | городской врач | лесник | бабушка | молодой художник"
        ),
        verbs=words(
            "видит | ищет | чинит | рисует | покупает | описывает | находит | охраняет | продаёт | показывает | вспоминает"
        ),
        objects=words(
            "каменный мост | корзину яблок | ключ от старого замка | книги о птицах | дорогу к мельнице | письмо из далёкой страны"
            " | окна ратуши | карту леса | парусную лодку | цветы на балконах"
        ),
        places=words(
            "на берегу реки | за церковью | на рыночной площади | недалеко от вокзала | под старыми липами | перед ратушей"
            " | на другом конце города | в саду музея | на побережье | возле театра"
        ),
        reasons=words(
            "потому что стоит хорошая погода | хотя никто об этом не просил | чтобы дети чему-нибудь научились | ведь времени мало"
            " | пока остальные ещё спят | как пишет газета | и все этому рады | но об этом редко говорят"
        ),
        sections=words("Город | Культура | Путешествия | Кухня | Погода | Общество | История | Письма | Спорт"),
    ),
}

LABELS = {
    "en": Labels(
        *words(
            "Home | About us | Contact | Search"
            " | This site uses cookies to make your visit better. By staying here you agree to our use of cookies."
            " | Accept all | Read more | Comments | You may also like | Share this | Sign up for our weekly newsletter"
            " | Privacy policy | Terms of use | All rights reserved."
        )
    ),
    "de": Labels(
        *words(
            "Startseite | Über uns | Kontakt | Suche"
            " | Diese Seite verwendet Cookies, um Ihren Besuch angenehmer zu machen. | Alle annehmen | Mehr erfahren"
            " | Kommentare | Das könnte Sie auch interessieren | Teilen | Unser Rundbrief, jede Woche | Datenschutz"
            " | Nutzungsbedingungen | Alle Rechte vorbehalten."
        )
    ),
    "fr": Labels(
        *words(
            "Accueil | À propos | Contact | Recherche"
            " | Ce site utilise des cookies pour rendre votre visite plus agréable. | Tout accepter | En savoir plus"
            " | Commentaires | À lire aussi | Partager | Recevez notre lettre chaque semaine | Confidentialité"
            " | Conditions d'utilisation | Tous droits réservés."
        )
    ),
    "es": Labels(
        *words(
            "Inicio | Quiénes somos | Contacto | Buscar | Este sitio utiliza cookies para mejorar su visita."
            " | Aceptar todo | Más información | Comentarios | También le puede interesar | Compartir"
            " | Reciba nuestro boletín cada semana | Privacidad | Condiciones de uso | Todos los derechos reservados."
        )
    ),
    "ru": Labels(
        *words(
            "Главная | О нас | Контакты | Поиск | Этот сайт использует файлы cookie, чтобы сделать посещение удобнее."
            " | Принять все | Подробнее | Комментарии | Читайте также | Поделиться | Подпишитесь на нашу рассылку"
            " | Конфиденциальность | Условия использования | Все права защищены."
        )
    ),
}
