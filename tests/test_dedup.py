"""What could go wrong in deduplication: near duplicates missed, paraphrases merged, a result that depends on how the
work was split.
"""

import gzip
import itertools
import json
import random
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import minhash
from tasks.addresses import normalise
from tasks.artifacts import Config, Documents, Outcome, Step
from tasks.dedup import DedupConfig, dedup, judge, sign, signature_of
from tasks.shards import Document, ShardWriter, read_documents
from tasks.stage import execute

CONFIG = DedupConfig()
FUNCTIONS = minhash.hash_functions(CONFIG.num_bands * CONFIG.hashes_per_band, CONFIG.seed)


def is_near(one, other):
    """Whether the two texts are near duplicates, by the two tests of the stage."""
    signed = [signature_of(text, CONFIG, FUNCTIONS) for text in (one, other)]
    shares_band = (signed[0]["bands"] == signed[1]["bands"]).any()
    return bool(shares_band and (signed[0]["sketch"] == signed[1]["sketch"]).mean() >= CONFIG.min_similarity)


# Words and runs


def test_texts_are_made_alike():
    assert minhash.split_words("Élan,  naïve—CAFÉ; 3.14 and 1,000 or ４２!") == [
        "elan",
        "naive",
        "cafe",
        "0",
        "and",
        "0",
        "or",
        "0",
    ]
    assert minhash.split_words("Don't stop_here") == ["don", "t", "stop", "here"]


def test_runs_are_a_set_and_short_texts_have_none():
    assert len(minhash.hash_runs(list("abcd"), 5)) == 0
    assert len(minhash.hash_runs(list("abcde"), 5)) == 1
    assert len(minhash.hash_runs(list("abcdeabcde"), 5)) == 5
    assert len(minhash.hash_runs(["a"] * 100, 5)) == 1


def test_the_order_of_words_in_a_run_matters():
    assert minhash.hash_runs(list("abcde"), 5)[0] != minhash.hash_runs(list("edcba"), 5)[0]


# Signatures


def test_signatures_are_the_smallest_values_of_the_hash_functions():
    runs = np.array([0, 1, 7, 2**63, 2**64 - 1] * 300, np.uint64) + np.arange(1500, dtype=np.uint64)
    factors, summands = minhash.hash_functions(16, seed=3)
    prime = 2**61 - 1
    expected = [
        min((int(a) * int(x) + int(b)) % 2**64 % prime for x in runs) for a, b in zip(factors, summands, strict=True)
    ]
    assert minhash.sign(runs, factors, summands).tolist() == expected


def test_signatures_are_stable_for_ever():
    """A golden value: artifacts of different machines and versions are compared with each other."""
    text = "It was a bright cold day in April, and the clocks were striking thirteen."
    assert [f"{key:016x}" for key in signature_of(text, CONFIG, FUNCTIONS)["bands"].tolist()[:3]] == GOLDEN


GOLDEN = ["9f77e382421a993c", "993df398db6d4c98", "9cb9fd41ae9209e6"]


def texts_of_similarity(shared, own, seed):
    """Two sets of runs with Jaccard similarity shared / (shared + 2 own)."""
    values = np.random.RandomState(seed).randint(0, 2**63, shared + 2 * own, dtype=np.uint64)
    return values[: shared + own], np.concatenate([values[:shared], values[shared + own :]])


def test_equal_values_are_as_frequent_as_the_similarity():
    functions = minhash.hash_functions(4000, seed=2)
    one, other = (minhash.sign(runs, *functions) for runs in texts_of_similarity(300, 50, seed=1))
    assert abs((one == other).mean() - 0.75) < 4 * (0.75 * 0.25 / 4000) ** 0.5


@pytest.mark.parametrize(("shared", "own"), [(100, 50), (140, 30), (160, 20), (180, 10)])
def test_the_probability_of_a_shared_band(shared, own):
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
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40), st.randoms())
def test_clusters_are_connected_components_in_whatever_order(pairs, random_order):
    clusters = minhash.Clusters(20)
    for one, other in random_order.sample(pairs, len(pairs)):
        clusters.join(one, other)
    reached = {document: {document} for document in range(20)}
    for _ in range(20):
        for one, other in pairs:
            reached[one] |= reached[other]
            reached[other] |= reached[one]
    assert [clusters.first(document) for document in range(20)] == [min(reached[document]) for document in range(20)]


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
def test_addresses_of_one_page(url):
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
def test_addresses_of_other_pages(url):
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


def deduplicate(store, shards, num_workers):
    """By the stage: manifest, kept and dropped documents by name, lines of clusters.jsonl."""
    step = dedup(source(shards), DedupConfig(num_workers=num_workers))
    manifest = execute(step, store)
    folder = store.folder(manifest.id)
    kept = {found["id"]: found for path in sorted(folder.glob("documents/*")) for found in read_documents(path)}
    dropped = {found["id"]: found for path in sorted(folder.glob("dropped/*")) for found in read_documents(path)}
    clusters = [json.loads(line) for line in (folder / "clusters.jsonl").read_text().splitlines()]
    return manifest, kept, dropped, clusters


def verdicts_of(shards, **settings):
    """By the functions alone: of each document what is kept for it, why it is dropped, how many are dropped for it."""
    config = DedupConfig(**settings)
    signed = [sign([Document(**found) for found in shard], number, config) for number, shard in enumerate(shards)]
    verdicts = judge(pa.concat_tables(signed), config).to_pylist()
    return {verdict["id"]: (verdict["kept"], verdict["reason"], verdict["num_duplicates"]) for verdict in verdicts}


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


def test_each_rule_drops_its_duplicates_and_the_best_one_stays():
    assert verdicts_of([WEB]) == VERDICTS


@pytest.mark.parametrize(
    ("rule", "name", "verdict"),
    [
        ("by_url", "first", "duplicate/minhash"),  # one is the other and a word
        ("by_content", "copy-b", "duplicate/minhash"),
        ("by_minhash", "near-short", None),
    ],
)
def test_a_rule_that_is_off_drops_nothing(rule, name, verdict):
    assert verdicts_of([WEB], **{rule: False})[name][1] == verdict


def test_a_pair_below_the_similarity_stays():
    assert verdicts_of([WEB], min_similarity=1.0)["near-short"][1] is None


def test_documents_without_a_run_are_no_near_duplicates():
    web = [document("a", "four words are few"), document("b", "four words, are few!")]
    assert [reason for _, reason, _ in verdicts_of([web]).values()] == [None, None]


def test_a_chain_of_rules_leads_to_the_document_that_stays():
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
        place = {"file": f"f{generator.randrange(3)}", "offset": generator.randrange(5)}
        web.append(document(f"d{number}", " ".join(words), **place))
    return web


@pytest.mark.parametrize("seed", range(5))
def test_the_result_does_not_depend_on_shards_or_their_order(seed):
    web = mutated_web(seed)
    shuffled = random.Random(seed).sample(web, len(web))
    verdicts = verdicts_of([web])
    assert verdicts_of([web[30:], web[:30]]) == verdicts
    assert verdicts_of([shuffled[40:], [], shuffled[:7], shuffled[7:40]]) == verdicts
    assert sum(reason is None for _, reason, _ in verdicts.values()) == 15


def test_the_stage_accounts_for_every_document_however_it_is_run(store):
    manifest, kept, dropped, clusters = deduplicate(store, [WEB[:4], WEB[4:]], num_workers=1)
    assert {name: found["attributes"]["num_duplicates"] for name, found in kept.items()} == {
        name: num for name, (_, reason, num) in VERDICTS.items() if reason is None
    }
    expected = {name: (best, reason) for name, (best, reason, _) in VERDICTS.items() if reason}
    assert {cluster["id"]: (cluster["kept"], cluster["reason"]) for cluster in clusters} == expected
    assert {name: found["reason"] for name, found in dropped.items()} == {
        name: reason for name, (_, reason) in expected.items()
    }
    assert dropped["first"]["text"] == STORIES[0]
    counts = manifest.counts
    assert (counts["documents"], counts["documents_dropped"]) == (len(kept), len(dropped)) == (6, 3)
    assert counts["documents_dropped"] == sum(num for name, num in counts.items() if name.startswith("dropped/"))
    again = deduplicate(store, [WEB[5:], [], WEB[:5]], num_workers=2)
    assert again[0].id != manifest.id
    assert again[1:] == (kept, dropped, clusters)


# Real texts


def read_lines(path):
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def similarity(one, other):
    runs = [set(minhash.hash_runs(minhash.split_words(text), CONFIG.run_words).tolist()) for text in (one, other)]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


def test_editions_of_a_book_are_near_duplicates(shared_data):
    """Passages in two editions: as many are found as the curve promises for their similarities."""
    pairs = read_lines(shared_data / "dedup/gutenberg-editions.jsonl.gz")
    similarities = np.array([similarity(pair["a"], pair["b"]) for pair in pairs])
    found = np.array([is_near(pair["a"], pair["b"]) for pair in pairs])
    print(f"found {found.sum()} of {len(pairs)}; the least similar pair has {similarities.min():.2f}")
    assert found[similarities > 0.9].all()
    assert found.mean() >= 0.98


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
