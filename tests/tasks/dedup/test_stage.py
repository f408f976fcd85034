"""What could go wrong in deduplication: near duplicates missed, paraphrases merged, a result that depends on how the
work was split, on memory, on a kill; what is there already dropped for what is new.
"""

import gzip
import hashlib
import itertools
import json
import random
import tracemalloc
import unicodedata
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import Config
from model.errors import UserError
from tasks.artifacts.manifest import Documents
from tasks.artifacts.step import Outcome, Step
from tasks.dedup import clusters, columns, minhash, repeated_lines, signatures
from tasks.dedup.candidates import Work, assign_clusters
from tasks.dedup.clusters import Clusters
from tasks.dedup.columns import Column
from tasks.dedup.stage import DedupConfig
from tasks.execution.context import StageContext
from tasks.execution.runner import execute
from tasks.execution.shards import map_shards
from tasks.records.documents import Document, ShardWriter, read_documents
from tasks.web.urls import normalise
from tests.support.wiring import dedup
from tests.support.workers import work_here

CONFIG = DedupConfig()
FUNCTIONS = minhash.hash_functions(CONFIG.num_bands * CONFIG.rows_per_band, CONFIG.seed)


def ngrams_of(text, ngram_size=CONFIG.ngram_size):
    return minhash.hash_ngrams(minhash.hash_words(minhash.split_words(text)), ngram_size)


def signature_of(text):
    return minhash.sign(ngrams_of(text), *FUNCTIONS)


def is_near(one, other):
    """Whether the two texts are near duplicates, by the two tests of the stage."""
    one, other = signature_of(one), signature_of(other)
    shares_band = (minhash.band_keys(one, CONFIG.num_bands) == minhash.band_keys(other, CONFIG.num_bands)).any()
    return bool(shares_band and (minhash.sketch(one) == minhash.sketch(other)).mean() >= CONFIG.jaccard_threshold)


# Words and runs


def test_split_words_normalises_case_accents_numbers_and_punctuation():
    words = minhash.split_words("Élan,  naïve—CAFÉ; 3.14 and 1,000 or ４２!")
    assert b" ".join(words) == b"elan naive cafe 0 and 0 or 0"
    assert minhash.split_words("Don't stop_here") == [b"don", b"t", b"stop", b"here"]


OPTIONAL = ("COMBINING", "HEBREW POINT", "HEBREW ACCENT", "HEBREW MARK", "ARABIC", "VARIATION SELECTOR")
ALONE = ("CJK UNIFIED", "CJK COMPATIBILITY IDEOGRAPH", "HIRAGANA", "KATAKANA")
CUT = ("THAI", "LAO", "MYANMAR", "KHMER")


def is_mark(letter):
    return unicodedata.category(letter).startswith("M")


def is_optional(letter):
    """Accents and vowel points; the voicing marks of kana are combining marks that are not optional."""
    name = unicodedata.name(letter, "")
    return is_mark(letter) and name.startswith(OPTIONAL) and "KATAKANA" not in name


def kind_of(letter):
    """How words of its script are cut."""
    name = unicodedata.name(letter, "")
    return ALONE if name.startswith(ALONE) else CUT if name.startswith(CUT) else "spaced"


def plain_words(text):
    """The same by the definition, one letter at a time, for the letters of WRITTEN."""
    letters = [letter for letter in unicodedata.normalize("NFD", text.lower()) if not is_optional(letter)]
    words, is_open = [], False
    for letter in letters:
        if is_mark(letter) and words and is_open:
            words[-1] += letter
        elif not letter.isalnum() and not is_mark(letter):
            is_open = False
        elif (
            is_open
            and kind_of(letter) == kind_of(words[-1][0]) != ALONE
            and not (kind_of(letter) == CUT and ord(letter) % 3 == 0)
        ):
            words[-1] += letter
        else:
            words.append(letter)
        is_open = letter.isalnum() or is_mark(letter)
    return words


WRITTEN = [*"aBéĉ ,;'\n—漢字がカตлش한", "ปิ่", "ไ", "မြို့", "កា", "हि", "न्दी", "ਪੰ", "סּ", "е̄"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(WRITTEN)).map("".join))
def test_split_words_equals_its_definition(text):
    assert [word.decode() for word in minhash.split_words(text)] == plain_words(text)


@settings(deadline=None)
@given(st.text())
def test_split_words_is_idempotent_on_any_text(text):
    words = minhash.split_words(text)
    assert minhash.split_words(b" ".join(words).decode()) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("हिन्दी में किताब", "हिन्दी में किताब"),  # vowel signs and virama are part of a word
        ("தமிழ் நூல்", "தமிழ் நூல்"),
        ("がか ガカ", "か\u3099 か カ\u3099 カ"),  # a voicing mark makes another syllable
        ("我喜欢读书。", "我 喜 欢 读 书"),
        ("ประเทศไทย", "ประ เท ศไท ย"),
        ("ភាសាខ្មែរ", "ភាសាខ្មែ រ"),
        ("GPT-4很好", "gpt 0 很 好"),
        ("كِتَاب שָׁלוֹם", "كتاب שלום"),  # vowel points are optional
        ("Việt Nam", "viet nam"),
        ("한국어 책", unicodedata.normalize("NFD", "한국어 책")),
    ],
)
def test_split_words_in_scripts(text, words):
    assert b" ".join(minhash.split_words(text)).decode() == words


CHINESE = "春天来了，河边的柳树发出了嫩绿的新芽，孩子们在草地上放风筝，老人们坐在长椅上晒太阳，远处传来一阵阵悦耳的鸟鸣声。小镇的集市也热闹起来。"
JAPANESE = "春になると、川沿いの柳が芽吹き、子どもたちは草の上で凧を揚げ、お年寄りはベンチで日向ぼっこをし、遠くから鳥の声が聞こえてくる。"
THAI = "ฤดูใบไม้ผลิมาถึงแล้วต้นหลิวริมแม่น้ำแตกใบอ่อนสีเขียวเด็กๆเล่นว่าวบนสนามหญ้าส่วนผู้สูงอายุนั่งรับแดดอยู่บนม้านั่ง"
KHMER = "រដូវផ្ការីកបានមកដល់ហើយដើមឈើនៅតាមមាត់ទន្លេចេញស្លឹកខ្ចីពណ៌បៃតងក្មេងៗលេងខ្លែងនៅលើវាលស្មៅ"
KHMER += "ស្រុកភូមិក៏មានភាពអ៊ូអរ ហាងលក់ផ្លែឈើបើកតាំងពីព្រលឹម មនុស្សចាស់អង្គុយហាលថ្ងៃនៅក្រោមដើមឈើធំ សត្វស្លាបយំយ៉ាងពីរោះពីចម្ងាយ"
HINDI = "वसंत आ गया है, नदी के किनारे पेड़ों पर नई पत्तियाँ निकल आई हैं, बच्चे घास पर पतंग उड़ा रहे हैं और बुज़ुर्ग धूप सेंक रहे हैं।"


@pytest.mark.parametrize("text", [CHINESE, JAPANESE, THAI, KHMER, HINDI], ids=["zh", "ja", "th", "km", "hi"])
def test_near_duplicates_are_found_in_every_script(text):
    """One character more at the start, one less at the end: the copy is a near duplicate; another text is not."""
    assert is_near(text, text[3] + text[:-2])
    assert not is_near(text, text[::-1])
    assert len(ngrams_of(text)) > 10


def test_split_words_is_linear_in_a_run_of_marks():
    """Normalising such a run takes minutes if it is not cut."""
    assert len(minhash.split_words("a" + "\u0301\u0327" * 500_000 + " b")) == 2


def test_words_that_differ_in_a_vowel_sign_are_different():
    assert minhash.split_words("दिन") != minhash.split_words("दान")
    assert minhash.split_words("はは") != minhash.split_words("ばば")


def test_hash_ngrams_of_a_short_text_is_empty():
    assert len(ngrams_of("a b c d")) == 0
    assert len(ngrams_of("a b c d e")) == 1
    assert len(set(ngrams_of("a b c d e a b c d e").tolist())) == 5
    assert len(set(ngrams_of("a " * 100).tolist())) == 1


def test_hash_ngrams_depends_on_word_order():
    assert ngrams_of("a b c d e")[0] != ngrams_of("e d c b a")[0]


# Signatures


def test_sign_takes_the_minimum_of_each_hash_function():
    runs = np.array([0, 1, 7, 2**63, 2**64 - 1] * 300, np.uint64) + np.arange(1500, dtype=np.uint64)
    factors, summands = minhash.hash_functions(16, seed=3)
    prime = 2**61 - 1
    expected = [
        min((int(a) * int(x) + int(b)) % 2**64 % prime for x in runs) for a, b in zip(factors, summands, strict=True)
    ]
    assert minhash.sign(runs, factors, summands).tolist() == expected


def test_signatures_equal_their_golden_values():
    """A golden value: artifacts of different machines and versions are compared with each other."""
    text = "It was a bright cold day in April, and the clocks were striking thirteen."
    assert [f"{key:016x}" for key in minhash.band_keys(signature_of(text), 14).tolist()[:3]] == GOLDEN


GOLDEN = ["9f77e382421a993c", "993df398db6d4c98", "9cb9fd41ae9209e6"]


def texts_of_similarity(shared, own, seed):
    """Two sets of runs with Jaccard similarity shared / (shared + 2 own)."""
    values = np.random.RandomState(seed).randint(0, 2**63, shared + 2 * own, dtype=np.uint64)
    return values[: shared + own], np.concatenate([values[:shared], values[shared + own :]])


def test_fraction_of_equal_hashes_estimates_jaccard_similarity():
    functions = minhash.hash_functions(4000, seed=2)
    one, other = (minhash.sign(runs, *functions) for runs in texts_of_similarity(300, 50, seed=1))
    assert abs((one == other).mean() - 0.75) < 4 * (0.75 * 0.25 / 4000) ** 0.5


@pytest.mark.parametrize(("shared", "own"), [(100, 50), (140, 30), (160, 20), (180, 10)])
def test_probability_of_a_shared_band_follows_the_formula(shared, own):
    """As the docstring says: 1 - (1 - s^8)^14."""
    similarity = shared / (shared + 2 * own)
    expected = 1 - (1 - similarity**8) ** 14
    trials = 300
    found = sum(
        bool(
            (
                minhash.band_keys(minhash.sign(one, *FUNCTIONS), 14)
                == minhash.band_keys(minhash.sign(other, *FUNCTIONS), 14)
            ).any()
        )
        for one, other in (texts_of_similarity(shared, own, seed) for seed in range(trials))
    )
    assert abs(found / trials - expected) < 4 * (expected * (1 - expected) / trials) ** 0.5 + 1 / trials


# Clusters


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=15), max_size=4))
def test_clusters_are_connected_components(batches):
    found = Clusters(20)
    for pairs in batches:
        found.join(*np.array(pairs, np.int32).reshape(-1, 2).T)
    reached = {document: {document} for document in range(20)}
    for _ in range(20):
        for one, other in itertools.chain(*batches):
            reached[one] |= reached[other]
            reached[other] |= reached[one]
    found.settle()
    assert found.parents.tolist() == [min(reached[document]) for document in range(20)]
    assert found.sizes().tolist() == [
        len(reached[document]) if min(reached[document]) == document else 0 for document in range(20)
    ]


def test_clusters_join_a_long_chain():
    """A million copies of one text are a million pairs in a row: no step of the merge may go up it one by one."""
    ranks = np.arange(1_000_000, dtype=np.int32)
    found = Clusters(len(ranks))
    found.join(ranks[:-1], ranks[1:])
    found.settle()
    assert not found.parents.any()


# Columns


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=40), st.integers(1, 6))
def test_quantile_ranges_hold_every_document_once(tmp_path_factory, lengths, num_parts):
    column = Column(tmp_path_factory.mktemp("columns") / "lengths", np.dtype(np.int64))
    column.create()
    column.write(0, np.array(lengths, np.int64))
    ranges = columns.quantile_ranges(column, len(lengths), num_parts)
    parts = [columns.select(column, [column], len(lengths), *ends) for ends in ranges]
    assert len(parts) <= num_parts
    assert sorted(number for numbers, _, _ in parts for number in numbers.tolist()) == list(range(len(lengths)))
    assert [length for _, keys, _ in parts for length in sorted(keys.tolist())] == sorted(lengths)


@pytest.mark.parametrize("num", [1, 3, 14, 1000])
def test_even_ranges_cover_all_keys(num):
    ranges = columns.even_ranges(num)
    assert (ranges[0][0], ranges[-1][1]) == (0, 2**64 - 1)
    assert all(high + 1 == low for (_, high), (low, _) in itertools.pairwise(ranges))


# Addresses


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a",
        "https://EXAMPLE.com/a/",
        "https://example.com:443/a#part",
        "http://example.com:80/a?utm_source=x&utm_medium=y",
        "http://user@example.com/a?fbclid=1",
    ],
)
def test_normalise_equal_urls(url):
    assert normalise(url) == "example.com/a"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/b",
        "https://example.com/A",
        "https://example.com/a?id=1",
        "https://example.com:8080/a",
        "https://www.example.com/a",
        "http://[broken",
    ],
)
def test_normalise_different_urls(url):
    assert normalise(url) != "example.com/a"


# The stage


class Shards(Config):
    """Documents as they are spread over shards, and the order of the shards."""

    shards: list[list[dict]]


def write_shards(run, config):
    num = 0
    for number, shard in enumerate(config.shards):
        with ShardWriter(run.folder / "documents" / f"shard-{number}.parquet") as writer:
            for document in shard:
                writer.write(Document(**document))
                num += 1
    return Outcome({"documents": num})


def source(shards):
    return Step("source", 1, Documents, Shards(shards=shards), {}, run=write_shards, is_source=True)


def document(name, text, url=None, file="a", offset=0):
    return {
        "id": name,
        "url": url or f"https://{name}.example/",
        "date": "2024-05-20",
        "file": file,
        "offset": offset,
        "text": text,
    }


def deduplicate(store, shards, **settings):
    """By the stage: manifest, kept and dropped documents by name, lines of clusters.jsonl."""
    manifest = execute(dedup(source(shards), DedupConfig(**settings)), store)
    return manifest, *read_outcome(store, manifest)


def read_outcome(store, manifest):
    folder = store.folder(manifest.id)
    kept = {found["id"]: found for path in sorted(folder.glob("documents/*")) for found in read_documents(path)}
    dropped = {found["id"]: found for path in sorted(folder.glob("dropped/*")) for found in read_documents(path)}
    duplicates = [json.loads(line) for line in (folder / "clusters.jsonl").read_text().splitlines()]
    return kept, dropped, duplicates


@pytest.fixture
def in_this_process(monkeypatch):
    work_here(monkeypatch)


@pytest.fixture
def verdicts_of(store, in_this_process):
    """By the stage, in this process: of each document what is kept for it, why it is dropped, how many are dropped for it."""

    def verdicts(shards, **settings):
        manifest = execute(dedup(source(shards), DedupConfig(**settings)), store, force=True)
        kept, _, duplicates = read_outcome(store, manifest)
        stays = {name: (name, None, int(found["attributes"]["num_duplicates"])) for name, found in kept.items()}
        goes = {found["id"]: (found["kept"], found["reason"], 0) for found in duplicates}
        assert len(stays) + len(goes) == sum(map(len, shards))
        return stays | goes

    return verdicts


def story(seed, num_words=200):
    words = random.Random(seed)
    return " ".join(f"word{words.randrange(500)}x".replace("0", "o") for _ in range(num_words))


def as_letters(text):
    return text.translate(str.maketrans("0123456789", "abcdefghij"))


STORIES = [as_letters(story(seed)) for seed in range(6)]
NEAR = STORIES[1].replace(STORIES[1].split()[50], "another", 1) + " the end"
WEB = [
    document("first", STORIES[0], url="https://one.example/page"),
    document("again", STORIES[0] + " longer", url="http://one.example/page/?utm_source=feed#top"),
    document("copy-b", STORIES[2], file="b"),
    document("copy-a", STORIES[2], file="a", offset=7),
    document("near", NEAR),
    document("near-short", STORIES[1]),
    document("other", STORIES[3]),
    document("stub-1", "four words are few"),
    document("stub-2", "four words are little"),
]


VERDICTS = {
    "first": ("again", "duplicate/url", 0),
    "again": ("again", None, 1),
    "copy-b": ("copy-a", "duplicate/content", 0),
    "copy-a": ("copy-a", None, 1),
    "near": ("near", None, 1),
    "near-short": ("near", "duplicate/minhash", 0),
    "other": ("other", None, 0),
    "stub-1": ("stub-1", None, 0),
    "stub-2": ("stub-2", None, 0),
}


def test_each_rule_drops_its_duplicates_and_keeps_the_best(verdicts_of):
    assert verdicts_of([WEB]) == VERDICTS


@pytest.mark.parametrize(
    ("rule", "name", "verdict"),
    [
        ("by_url", "first", "duplicate/minhash"),  # one is the other and a word
        ("by_content", "copy-b", "duplicate/minhash"),
        ("by_minhash", "near-short", None),
    ],
)
def test_disabled_rule_drops_nothing(verdicts_of, rule, name, verdict):
    assert verdicts_of([WEB], **{rule: False})[name][1] == verdict


def test_pair_below_the_threshold_is_kept(verdicts_of):
    assert verdicts_of([WEB], jaccard_threshold=1.0)["near-short"][1] is None


def test_documents_without_ngrams_are_not_near_duplicates(verdicts_of):
    web = [document("a", "four words are few"), document("b", "four words, are few!")]
    assert [reason for _, reason, _ in verdicts_of([web]).values()] == [None, None]


def test_no_documents_give_no_documents(verdicts_of):
    assert verdicts_of([[]]) == verdicts_of([[]], keep_signatures=True, max_line_documents=1) == {}


def test_clusters_name_the_kept_document_across_rules(verdicts_of):
    """b has the address of a, and nearly the text of c: all three are one cluster, and c is its longest."""
    web = [
        document("a", STORIES[4][:300], url="https://x.example/"),
        document("b", STORIES[1], url="https://x.example"),
        document("c", NEAR),
    ]
    assert verdicts_of([web]) == {
        "a": ("c", "duplicate/url", 0),
        "b": ("c", "duplicate/minhash", 0),
        "c": ("c", None, 2),
    }


def mutated_web(seed, num=60):
    """Documents in families of near duplicates, with equal lengths among them, so that ties are broken."""
    generator = random.Random(seed)
    web = []
    for number in range(num):
        words = as_letters(story(number % 15, 300)).split()
        for _ in range(generator.randrange(3)):
            words[generator.randrange(300)] = "changed"
        place = {"file": f"f{generator.randrange(3)}", "offset": generator.randrange(5) * 100 + number}
        web.append(document(f"d{number}", " ".join(words), **place))
    return web


def digest(verdicts):
    listing = sorted((name, *verdict) for name, verdict in verdicts.items())
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()[:16]


GOLDEN_VERDICTS = ["0d3c915b326332d4", "6f42c52d3373d3b9", "92c7e9f76c39cf00", "d3d40808d27f88ba", "69745e0acc47394c"]


@pytest.mark.parametrize("seed", range(5))
def test_result_does_not_depend_on_shards_order_or_memory(verdicts_of, seed):
    """Golden values of the first version, which held everything in memory."""
    web = mutated_web(seed)
    shuffled = random.Random(seed).sample(web, len(web))
    assert digest(verdicts_of([web])) == GOLDEN_VERDICTS[seed]
    for num in (300, 3_000):  # bytes for parts: of some documents, of half of them
        memory = clusters.held_bytes(60) + num
        assert digest(verdicts_of([web[30:], web[:30]], max_memory_bytes=memory)) == GOLDEN_VERDICTS[seed]
    assert digest(verdicts_of([shuffled[40:], [], shuffled[:7], shuffled[7:40]])) == GOLDEN_VERDICTS[seed]


def test_rank_of_equal_documents_does_not_depend_on_sharding(verdicts_of):
    web = [document(f"d{number}", STORIES[0] + " " + "ab"[number % 2]) for number in range(20)]
    verdicts = verdicts_of([web])
    assert verdicts_of([web[::-1]]) == verdicts
    assert sum(reason is None for _, reason, _ in verdicts.values()) == 1


def test_too_little_memory_is_refused_at_the_start(store):
    with pytest.raises(ValueError, match="set it to 324 or more"):
        deduplicate(store, [WEB], max_memory_bytes=100)


def signed_at_random(folder, num):
    """The columns of documents of which a fifth has the keys of others, without the documents."""
    work = Work(folder, folder, DedupConfig(num_bands=2, num_workers=1), num)
    random = np.random.default_rng(num)
    for name, column in work.columns.items():
        column.create()
        values = random.integers(0, 2**62, num)
        if name in ("url", "content", *signatures.bands(work.config)):
            values[: num // 5] = values[num // 5 : num // 5 * 2]
        known = {"num_characters": values % 3000, "is_signed": values >= 0, "file": np.zeros(num)}
        same = np.zeros((num, column.dtype.itemsize))
        column.write(0, same if name == "sketch" else known.get(name, values))
    return work


def test_merge_stays_within_its_memory_and_finds_the_same(tmp_path, in_this_process):
    num, parents, peaks = 300_000, [], []
    work = signed_at_random(tmp_path, num)
    run = StageContext(dedup(source([[]]), work.config), tmp_path)
    for memory in (1 << 30, clusters.held_bytes(num) + 3_000_000):
        limited = replace(work, config=work.config.model_copy(update={"max_memory_bytes": memory}))
        tracemalloc.start()
        parents.append(assign_clusters(run, limited, [], num_known=0).clusters.parents)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (parents[0] == parents[1]).all()
    assert (parents[0] != np.arange(num)).sum() >= num // 5
    assert peaks[1] < clusters.held_bytes(num) + 3_000_000 + 10_000_000 < peaks[0]


def test_stage_accounts_for_every_document(store, caplog):
    caplog.set_level("INFO", "crawl2chat")
    manifest, kept, dropped, duplicates = deduplicate(store, [WEB[:4], WEB[4:]], num_workers=1)
    assert {name: found["attributes"]["num_duplicates"] for name, found in kept.items()} == {
        name: num for name, (_, reason, num) in VERDICTS.items() if reason is None
    }
    expected = {name: (best, reason) for name, (best, reason, _) in VERDICTS.items() if reason}
    assert {found["id"]: (found["kept"], found["reason"]) for found in duplicates} == expected
    assert {name: found["reason"] for name, found in dropped.items()} == {
        name: reason for name, (_, reason) in expected.items()
    }
    assert dropped["first"]["text"] == STORIES[0]
    counts = manifest.counts
    assert (counts["documents"], counts["documents_dropped"]) == (len(kept), len(dropped)) == (6, 3)
    assert counts["documents_dropped"] == sum(num for name, num in counts.items() if name.startswith("dropped/"))
    assert {path.split("/")[0] for path in (file.path for file in manifest.files)} == {
        "documents",
        "dropped",
        "dropped.jsonl",
        "clusters.jsonl",
    }
    assert "9 documents with those of 0 known shards: about 0.000 GB" in caplog.text
    assert "peak memory" in caplog.text
    again = deduplicate(store, [WEB[5:], [], WEB[:5]], num_workers=2, max_memory_bytes=clusters.held_bytes(9) + 300)
    assert again[0].id != manifest.id
    assert again[1:] == (kept, dropped, duplicates)


def test_stage_killed_in_any_pass_resumes_to_the_same_result(store, monkeypatch, caplog):
    """Each pass fails once, after its first shard, and the stage is run again until it has a result."""
    caplog.set_level("INFO", "crawl2chat")
    failures = []

    def map_once(run, work, shards, **settings):
        if work in failures:
            return map_shards(run, work, shards, **settings)
        failures.append(work)
        map_shards(run, work, shards[:1], **settings)
        raise KeyboardInterrupt

    monkeypatch.setattr("tasks.dedup.stage.map_shards", map_once)
    monkeypatch.setattr("tasks.dedup.candidates.map_shards", map_once)
    step = dedup(source([WEB[:4], WEB[4:]]), DedupConfig(num_bands=2, rows_per_band=4, num_workers=1))
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            execute(step, store)
    kept, dropped, _ = read_outcome(store, execute(step, store))
    assert "resuming: 1 of 2 shards" in caplog.text
    assert [work.__name__ for work in failures] == ["sign_shard", "pair_part", "write_shard"]
    assert {name: found["reason"] for name, found in dropped.items()} == {
        name: reason for name, (_, reason, _) in VERDICTS.items() if reason
    }
    assert set(kept) == {name for name, (_, reason, _) in VERDICTS.items() if not reason}


# Against what is there


@pytest.fixture
def default_store(store, monkeypatch):
    monkeypatch.setenv("CRAWL2CHAT_STORE", store.url)
    return store


def test_new_crawl_is_deduplicated_against_an_earlier_one(default_store, verdicts_of):
    """What is there stays, also where the new document is better; what was dropped there drops nothing."""
    old = execute(dedup(source([WEB[:3], WEB[3:]]), DedupConfig(keep_signatures=True)), default_store)
    new = [
        document("longer-near", NEAR + " and much more was said", url="https://new-near.example/"),
        document("its-copy", NEAR + " and much more was said", offset=1),
        document("same-url", "something else altogether", url="https://other.example"),
        document("same-text", STORIES[3]),
        document("new", STORIES[4]),
        document("new-short", " ".join(STORIES[4].split()[:-3])),
        document("url-of-a-dropped-one", STORIES[5], url="https://near-short.example/"),
    ]
    expected = {
        "longer-near": ("near", "duplicate/minhash", 0),
        "its-copy": ("near", "duplicate/content", 0),
        "same-url": ("other", "duplicate/url", 0),
        "same-text": ("other", "duplicate/content", 0),
        "new": ("new", None, 1),
        "new-short": ("new", "duplicate/minhash", 0),
        "url-of-a-dropped-one": ("url-of-a-dropped-one", None, 0),
    }
    assert verdicts_of([new], against=[old.id]) == expected
    memory = clusters.held_bytes(13) + 200
    assert verdicts_of([new[4:], new[:4]], against=[old.id], max_memory_bytes=memory) == expected
    third = execute(dedup(source([new]), DedupConfig(keep_signatures=True, against=[old.id])), default_store)
    again = verdicts_of([new, WEB], against=[old.id, third.id])
    assert all(reason for name, (_, reason, _) in again.items() if name not in ("first", "near-short", "copy-b"))
    assert set(third.inputs) == {"documents", "earlier_0"}


def test_two_crawls_in_turn_keep_the_clusters_of_one_pass(default_store, verdicts_of):
    """Families, not documents: of each one stays, in the first crawl that has it."""
    web = mutated_web(7)
    old = execute(dedup(source([web[:40]]), DedupConfig(keep_signatures=True)), default_store)
    kept = pq.read_table(default_store.folder(old.id) / "signatures/shard-0.parquet")["id"].to_pylist()
    assert len(kept) == 15
    assert all(best in kept for best, _, _ in verdicts_of([web[40:]], against=[old.id]).values())


def test_against_an_artifact_without_equal_signatures_is_refused(default_store, in_this_process):
    without = execute(dedup(source([WEB]), DedupConfig()), default_store)
    other = execute(dedup(source([WEB]), DedupConfig(keep_signatures=True, seed=2)), default_store)
    with pytest.raises(ValueError, match="keep_signatures=False, and True is needed; run its dedup stage again"):
        execute(dedup(source([WEB]), DedupConfig(against=[without.id])), default_store)
    with pytest.raises(ValueError, match="seed=2, and 1 is needed"):
        execute(dedup(source([WEB]), DedupConfig(against=[other.id])), default_store)
    with pytest.raises(ValueError, match="there is no artifact dedup/0"):
        execute(dedup(source([WEB]), DedupConfig(against=["dedup/0"])), default_store)


def test_kept_signatures_take_the_documented_bytes(default_store, in_this_process):
    web = [document(f"d{number}", as_letters(story(number))) for number in range(500)]
    old = execute(dedup(source([web]), DedupConfig(keep_signatures=True)), default_store)
    [size] = [file.bytes for file in old.files if file.path.startswith("signatures/")]
    assert 241 < size / 500 < 260


# Lines


def test_frequent_lines_and_documents_left_short_are_removed(store, in_this_process):
    web = [
        document(
            f"d{number}", f"Accept all  COOKIES, now!\n{as_letters(story(100 + number))}\n\nImprint\nPage {number}"
        )
        for number in range(4)
    ]
    web.append(document("banner", "Accept all cookies now\nand nothing else is here that anybody would want to read"))
    config = DedupConfig(max_line_documents=3, num_workers=1)
    manifest = execute(dedup(source([web[:2], web[2:]]), config), store)
    kept, dropped, duplicates = read_outcome(store, manifest)
    expected = [f"{as_letters(story(100 + number))}\n\nPage {number}" for number in range(4)]
    assert [found["text"] for found in kept.values()] == expected
    assert dropped["banner"]["reason"] == "duplicate/lines"
    assert dropped["banner"]["text"] == web[-1]["text"]
    assert duplicates == []
    assert deduplicate(store, [web], max_line_documents=5)[1]["d0"]["text"] == web[0]["text"]


def test_lines_of_duplicates_are_not_counted(store, in_this_process):
    """A text that stands in many copies would lose every line."""
    web = [document(f"d{number}", STORIES[0] + "\n" + STORIES[1]) for number in range(5)]
    _, kept, _, _ = deduplicate(store, [web], max_line_documents=2)
    assert [found["text"] for found in kept.values()] == [web[0]["text"]]


def test_artifact_without_shards_is_refused(store):
    with pytest.raises(UserError, match="stage dedup has no shard to read: run the stage before it again"):
        execute(dedup(source([]), DedupConfig(max_line_documents=3)), store)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.lists(st.integers(0, 8), max_size=6), max_size=4), max_size=4), st.integers(1, 3))
def test_frequent_counts_a_line_once_per_document_over_all_shards(tmp_path_factory, shards, most):
    texts = [["\n".join("abcdefgh-"[line] for line in text) for text in shard] for shard in shards]
    folder = tmp_path_factory.mktemp("lines")
    paths = [folder / f"{number}.npy" for number in range(len(shards))]
    for path, found in zip(paths, texts, strict=True):
        np.save(path, repeated_lines.collect(found))
    unwanted = [repeated_lines.frequent(paths, *ends, most) for ends in columns.even_ranges(3)] if paths else []
    counts = Counter(letter for shard in shards for text in shard for letter in {"abcdefgh-"[line] for line in text})
    expected = {letter for letter, num in counts.items() if num > most and letter != "-"}
    assert sorted(np.concatenate([np.zeros(0, np.uint64), *unwanted]).tolist()) == sorted(
        repeated_lines.hash_lines(letter).item() for letter in expected
    )


def test_repeated_lines_of_ccnet_fixture(shared_data):
    """Exact line deduplication as a well-known course asks for it: every line that is in two documents is gone."""
    folder = shared_data / "dedup/cs336"
    texts = {path.name: path.read_text() for path in sorted((folder / "documents_with_line_duplicates").iterdir())}
    hashes = np.concatenate([repeated_lines.collect([text]) for text in texts.values()])
    values, counts = np.unique(hashes, return_counts=True)
    for name, text in texts.items():
        expected = (folder / "documents_line_deduplicated" / name).read_text()
        assert repeated_lines.without(text, values[counts > 1]) == expected.strip("\n")


# Real texts


def read_lines(path):
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def similarity(one, other):
    runs = [set(ngrams_of(text).tolist()) for text in (one, other)]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


def test_editions_of_a_book_are_near_duplicates(shared_data):
    """Passages in two editions: as many are found as the curve promises for their similarities."""
    pairs = read_lines(shared_data / "dedup/gutenberg-editions.jsonl.gz")
    similarities = np.array([similarity(pair["a"], pair["b"]) for pair in pairs])
    found = np.array([is_near(pair["a"], pair["b"]) for pair in pairs])
    print(f"found {found.sum()} of {len(pairs)}; the least similar pair has {similarities.min():.2f}")
    assert found[similarities > 0.9].all()
    assert found.mean() >= 0.98


def test_verdicts_on_real_texts_equal_golden_values(shared_data, verdicts_of):
    """Golden, as above: editions, copies and web pages, in one crawl."""
    editions = read_lines(shared_data / "dedup/gutenberg-editions.jsonl.gz")
    pages = read_lines(shared_data / "pretrain/c4-demo.jsonl.gz")
    demo = (shared_data / "dedup/data-juicer-dedup-demo.jsonl").read_text(encoding="utf-8").splitlines()
    web = [
        document(f"{number}{side}", pair[side], offset=2 * number + (side == "b"))
        for number, pair in enumerate(editions)
        for side in "ab"
    ]
    web += [document(f"dj{number}", json.loads(line)["text"], offset=1000 + number) for number, line in enumerate(demo)]
    web += [document(f"c4{number}", page["text"], offset=2000 + number) for number, page in enumerate(pages)]
    assert digest(verdicts_of([web[100:], web[:100]])) == "290167c267c524a7"


def test_paraphrases_are_not_merged(shared_data):
    """The same news at three reading levels: different words for one content are no duplicates."""
    articles = read_lines(shared_data / "pretrain/onestop-english.jsonl.gz")
    versions = defaultdict(list)
    for article in articles:
        versions[article["name"]].append(article["text"])
    near = [
        similarity(one, other)
        for texts in versions.values()
        for one, other in itertools.combinations(texts, 2)
        if is_near(one, other)
    ]
    assert len(versions) > 150
    assert near == []
