"""`gristmill build-sft`: each row of mixed files is in a packed row or in a ledger; shares, choices and replay hold."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from chatting import CORPUS, PLAIN, assistant, chat, tokenizer, user
from realdata import real
from test_learned import trained

from gristmill.dataops.chat.read import BESIDE, ChatSet, read_sets
from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.fsck import fsck
from gristmill.dataops.pack import best_fit
from gristmill.dataops.sft.build import Choice, sft_set
from gristmill.dataops.sft.sets import quotas
from gristmill.dataops.store import Store
from gristmill.dataops.tokenizer.encode import encode
from gristmill.flows.cli import main
from gristmill.training.shards import IGNORED, Shards

SEQ = 128
THINGS = [
    "water", "stone", "grain", "flour", "bread", "wheel", "miller", "sack",
    "river", "donkey", "wind", "sail", "barn", "oven", "cart", "road",
]  # fmt: skip


def ask(n: int) -> str:
    """Questions that are no near-duplicates of each other."""
    a, b, c = THINGS[n % 16], THINGS[n // 16 % 16], THINGS[n // 256 % 16]
    return f"{n}: tell me of the {a}, {n * 7}, and {b} of {c}{n * 13}?"


def answer(n: int) -> str:
    return f"The {THINGS[n % 16]} has the number {n * 31}, as {THINGS[n * 5 % 16]} said to {n}."


ALPACA = [{"instruction": ask(n), "input": "", "output": answer(n)} for n in range(40)]
SHAREGPT = [
    {"conversations": [{"from": "human", "value": ask(n)}, {"from": "gpt", "value": answer(n)}], "license": "MIT"}
    for n in range(100, 160)
]
MESSAGES = [{"messages": [user(ask(n)), assistant(answer(n))], "source": "mill"} for n in range(200, 300)]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A root with a chat tokenizer, and packed text of its tokenizer: "text", in rows of SEQ tokens."""
    folder = tmp_path_factory.mktemp("sft")
    chat(folder, PLAIN)
    plain = tokenizer(str(folder), "byte-bpe")
    store = Store(Path(plain.root))
    encoded = store.build("text-encoded", encode(plain), [store.get("texts")])
    stats = plain.manifest["stats"]
    fit = best_fit(seq_len=SEQ, eod=stats["eod"], vocab_size=stats["vocab_size"], tokenizer=plain.digest)
    assert store.build("text", fit, [encoded]).rows > 20 and len(CORPUS) > 100
    return store.root


@pytest.fixture
def files(tmp_path):
    def write(rows: list, name: str) -> str:
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
        return str(tmp_path / name)

    return write


@pytest.fixture
def three(files, tmp_path):
    """The .toml of the three sets, with weights or without."""
    (tmp_path / "alpaca.json").write_text(json.dumps(ALPACA))
    files(SHAREGPT, "sharegpt.jsonl")
    files(MESSAGES, "messages.jsonl")

    def write(*weights: float, **more: str) -> str:
        said = []
        for number, name in enumerate(("alpaca.json", "sharegpt.jsonl", "messages.jsonl")):
            said += [f"[sources.{name.partition('.')[0]}]", f'files = ["{name}"]']
            said += [f"weight = {weights[number]}"] if weights else []
            said += [f'{field} = "{value}"' for field, value in more.items()]
        (tmp_path / "sets.toml").write_text("\n".join(said))
        return str(tmp_path / "sets.toml")

    return write


@pytest.fixture
def build(root, capsys):
    def call(*arguments: str, status: int = 0, name: str = "set", seq_len: int | None = SEQ) -> dict:
        given = ["build-sft", *arguments, "--tokenizer", "chat", "--name", name, "--root", str(root)]
        given += ["--workers", "1", "--json"] + ([] if seq_len is None else ["--seq-len", str(seq_len)])
        assert main(given) == status
        return json.loads(capsys.readouterr().out)

    return call


def sources(root: Path, told: dict) -> Counter:
    """The tokens of a mixture by source."""
    made = Store(root).get(f"{told['name']}:{told['key']}")
    rows = made.scan().select("source", "length").collect()
    return Counter(
        {told["sources"][s]["source"]: n for s, n in rows.group_by("source").agg(pl.col("length").sum()).rows()}
    )


def documents(made: Dataset) -> list[bytes]:
    segments = made.scan().select(pl.col("segments").explode()).collect()["segments"]
    return segments.struct.field("id").to_list()


def test_every_row_of_mixed_files_is_packed_or_in_a_ledger(root, files, three, build):
    bad = [
        "{",
        {"text": "a"},
        {"messages": [user("a")]},
        {"messages": [user("a"), assistant(" ")]},
        {"messages": [user("a"), {"role": "robot", "content": "b"}]},
        {"instruction": "a", "output": "b"},
        {"messages": [user("long?"), assistant("b " * SEQ)]},
        {"messages": [user("huge?"), assistant("b" * 10_000_000)]},
        {"messages": [user("who?"), assistant("As an AI language model, I cannot know.")]},
        MESSAGES[0],
        {"messages": [user(ask(200) + " Or?"), assistant("Another answer.")]},
        {"messages": [user("And my mail?"), assistant("It is miller@mill.example.org now.")]},
    ]
    path = three()
    files(MESSAGES + bad, "messages.jsonl")
    told = build(path)
    counts = told["counts"]
    assert counts["chat.read"]["in"] == 40 + 60 + 100 + len(bad)
    reasons = Counter(reason for tally in counts.values() for reason in tally["reasons"].items())
    assert {reason for reason, n in reasons if n} == {
        "bad_json", "missing_column", "no_answer", "empty", "bad_roles", "other_format", "too_long", "as_an_ai",
        "duplicate", "near_duplicate",
    }  # fmt: skip
    assert counts["sft.redact"]["losses"]["email"]["rows"] == 1
    lost = sum(tally["dropped"] for tally in counts.values())
    assert lost == len(bad) - 1 and told["conversations"] == counts["chat.read"]["in"] - lost
    for before, after in zip([*counts.values()], [*counts.values()][1:], strict=False):
        assert after["in"] == before["kept"]
    store = Store(root)
    made = store.get("set@latest")
    assert len(documents(made)) == len({*documents(made)}) == told["conversations"]
    assert told["loss_tokens"] == made.scan().select(pl.col("targets").explode().sum()).collect().item()
    assert {item["format"] for item in told["formats"]} == {"alpaca", "sharegpt", "messages"}
    assert {(one["reason"], one["line"]) for one in told["examples"] if one["file"].endswith("messages.jsonl")} >= {
        ("bad_json", 101), ("empty", 104), ("other_format", 106),
    }  # fmt: skip
    assert Path(told["style"]).exists() and isinstance(told["warnings"], list)
    assert told["train"] == "gristmill train sft --data set@latest --start MODEL --tokenizer chat@latest"
    assert fsck(store)[1] == []


def test_rows_that_do_not_say_it_get_the_source_and_the_licence(root, three, build):
    told = build(three(source="elsewhere", licence="CC0"))
    rows = Store(root).get(f"set-messages:{told['datasets'][0]['key']}").scan().collect()
    assert Counter(rows.select("source", "licence").rows()) == {
        ("elsewhere", "CC0"): 40, ("elsewhere", "MIT"): 60, ("mill", "CC0"): 100,
    }  # fmt: skip
    told = build(three())
    rows = Store(root).get(f"set-messages:{told['datasets'][0]['key']}").scan().collect()
    assert Counter(rows["source"].to_list()) == {"alpaca": 40, "sharegpt": 60, "mill": 100}
    assert rows["licence"].null_count() == 140


def test_one_set_by_flags_is_that_set_by_a_file(files, build):
    path = files(SHAREGPT, "one.jsonl")
    told = build(path, "--source", "here", "--licence", "CC0", "--format", "sharegpt")
    assert told["sources"] == [] and told["conversations"] == 60
    assert build(path, "--source", "there")["datasets"][0]["key"] != told["datasets"][0]["key"]
    again = build("set-messages@latest")  # a dataset, cleaned and packed alike
    assert again["conversations"] == 60 and again["datasets"][0]["rows"] == 60
    assert "is a dataset: --source" in build("set-messages", "--source", "a", status=2)["error"]


def test_weights_are_shares_of_the_tokens_within_a_row(root, three, build):
    for weights in ((1, 1, 1), (0.6, 0.3, 0.1), (0, 2, 1)):
        told = build(three(*weights))
        total, found = sum(weights), sources(root, told)
        assert set(found) == {name for name, w in zip(("alpaca", "sharegpt", "messages"), weights, strict=True) if w}
        for weight, name in zip(weights, ("alpaca", "sharegpt", "messages"), strict=True):
            assert abs(found[name] - told["tokens"] * weight / total) <= SEQ
        assert max(item["epochs"] for item in told["sources"]) == pytest.approx(1, abs=0.05)  # none twice, one whole
    plain = build(three())
    twice = build(three(1, 1, 1), "--tokens", str(2 * plain["tokens"]))
    assert twice["tokens"] == pytest.approx(2 * plain["tokens"], abs=3 * SEQ)
    assert max(item["epochs"] for item in twice["sources"]) > 2


def test_a_replay_has_its_share_and_all_of_it_counts(root, three, build):
    told = build(three(), "--replay", "text=0.25", seq_len=None)
    assert told["seq_len"] == SEQ  # the replay's
    by = {item["source"]: item for item in told["sources"]}
    assert [*by] == ["chats", "replay"] and by["chats"]["epochs"] == 1
    assert abs(by["replay"]["tokens"] - told["tokens"] / 4) <= SEQ
    made = Store(root).get("set@latest")
    rows = made.scan().select("source", "targets", "positions", "length").collect()
    text = rows.filter(pl.col("source") == 1)
    for targets, positions, length in text.select("targets", "positions", "length").iter_rows():
        assert targets == [int(at < length and place > 0) for at, place in enumerate(positions)]
    assert by["replay"]["loss_tokens"] == text["targets"].explode().sum()
    assert told["loss_tokens"] == rows["targets"].explode().sum() < told["tokens"]
    read = Shards(made)
    labels = read.gather(pl.Series(range(made.rows)).to_numpy()).labels
    assert int((labels != IGNORED).sum()) == told["loss_tokens"]
    assert read.tokenizer == tokenizer(str(root.parent), "byte-bpe").digest
    assert made.manifest["ops"][-1]["params"]["template"] == told["chat"]["template"]
    ids = made.scan().select("source", "segments").collect().explode("segments").unnest("segments")
    store = Store(root)
    for source, name in enumerate(("set-messages", "texts")):
        known = store.get(name).scan().select("id").collect()["id"]
        assert ids.filter(pl.col("source") == source)["id"].is_in(known.implode()).all()
    with_weights = build(three(1, 1, 2), "--replay", "text=0.1")
    shares = {item["source"]: item["share"] for item in with_weights["sources"]}
    wanted = {"alpaca": 0.225, "sharegpt": 0.225, "messages": 0.45, "replay": 0.1}
    assert all(abs(shares[name] - share) * with_weights["tokens"] <= SEQ for name, share in wanted.items())


@pytest.mark.parametrize("rows", [1, 37, 150])
def test_n_good_ones_are_n(root, three, files, build, rows):
    path = three()
    long = [{"messages": [user(ask(n) + " more" * SEQ), assistant("b")]} for n in range(400, 420)]
    files(long + MESSAGES, "messages.jsonl")
    told = build(path, "--select", str(rows))
    assert told["conversations"] == rows == told["counts"]["sft.coverage"]["kept"]
    assert told["counts"]["sft.encodable"]["reasons"] == {"too_long": 20}


def test_choices_by_a_column_of_the_files(root, three, files, build):
    path = three()
    scored = [{**row, "score": n % 10 or None, "place": [n, 1.0, -n]} for n, row in enumerate(MESSAGES)]
    one = files(scored, "scored.jsonl")

    def chosen(*by: str) -> Counter:
        told = build(one, "--select", "15", "--by", *by)
        made = next(item for item in told["datasets"] if item["name"].endswith("-chosen"))
        frame = Store(root).get(f"{made['name']}:{made['key']}").scan().select("score").collect()
        return Counter(frame["score"].to_list())

    assert chosen("top", "--column", "score") == {9.0: 10, 8.0: 5}
    assert chosen("bottom", "--column", "score") == {1.0: 10, 2.0: 5}
    assert build(one, "--select", "12", "--by", "k_center", "--column", "place")["conversations"] == 12
    told = build(one, "--select", "95", "--by", "top", "--column", "score")
    assert told["conversations"] == 90 and told["counts"]["sft.top"]["reasons"]["unjudged"] == 10
    wrong = files([{**MESSAGES[0], "score": "good"}, *scored[1:]], "wrong.jsonl")
    told = build(wrong, "--select", "5", "--by", "top", "--column", "score")
    assert told["counts"]["chat.read"]["reasons"] == {"wrong_type": 1}
    assert "no row is left" in build(path, "--select", "5", "--by", "top", "--column", "score", status=2)["error"]


def test_where_sets_have_weights_the_choice_is_shared_out(root, three, build):
    told = build(three(0.5, 0.3, 0.2), "--select", "20")
    store, by = Store(root), {item["source"]: item for item in told["sources"]}
    assert [store.get(f"set-{name}-chosen").rows for name in by] == [10, 6, 4] and told["conversations"] == 20
    assert quotas(10, {"a": 1, "b": 1, "c": 1}) == {"a": 4, "b": 3, "c": 3}


def test_toxic_answers_go_and_toxic_questions_stay(root, files, build, tmp_path):
    insults = ["You stupid worthless idiot {0}", "Shut up, dumb idiot number {0}, you fool"]
    kind = ["The mill grinds {0} sacks of grain.", "Water turns wheel number {0}, and the stones are dressed."]
    labels = [
        {"text": form.format(f"{word}{n}"), "label": int(form in insults)}
        for form in (*insults, *kind)
        for word in THINGS
        for n in range(3)
    ]
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in labels))
    trained(root, path, "toxicity")
    rude = [{"messages": [user(ask(n)), assistant(insults[n % 2].format(n))]} for n in range(3)]
    asked = {"messages": [user(insults[0].format(9)), assistant("The mill grinds 9 sacks of grain.")]}
    told = build(files([*rude, asked, *MESSAGES[:5]], "rude.jsonl"), "--toxicity", "toxicity=0.5")
    assert told["counts"]["sft.harmful"]["reasons"] == {"toxic": 3} and told["conversations"] == 6
    shown = next(one for one in told["examples"] if one["reason"] == "toxic")
    assert (shown["line"], shown["why"]) == (1, "message 2")
    assert "no classifier" in build(files(MESSAGES, "a.jsonl"), "--toxicity", "text=0.5", status=2)["error"]


def test_sets_before_and_benchmarks_are_kept_out(root, files, build, tmp_path):
    build(files(MESSAGES[:50], "first.jsonl"), name="first")
    told = build(files(MESSAGES, "both.jsonl"), "--after", "first-unique", name="second")
    assert told["counts"]["sft.exact"]["reasons"] == {"duplicate": 50} and told["conversations"] == 50
    words = "whose mill stands by the long river where the miller sold his donkey for seven sacks of flour in spring"
    held = {"messages": [user(f"So, {words}, say?"), assistant("Nobody's.")]}
    benchmark = tmp_path / "bench.jsonl"
    benchmark.write_text(json.dumps({"question": words, "answer": "nobody"}) + "\n")
    told = build(
        files([held, *MESSAGES], "held.jsonl"), "--benchmark", f"toy={benchmark}:question,answer", name="third"
    )
    assert told["conversations"] == 100 and Store(root).get("third-decontaminated").rows == 100


def test_where_nothing_stays_no_tag_moves(root, files, build):
    before = build(files(MESSAGES, "good.jsonl"))
    tags = {path: path.read_text() for path in root.glob("set*/tags/latest")}
    assert len(tags) >= 5
    error = build(files([{"messages": [user("a")]}], "bad.jsonl"), status=2)["error"]
    assert "no row is left" in error and "no_answer 1" in error
    assert {path: path.read_text() for path in root.glob("set*/tags/latest")} == tags
    assert Store(root).get("set@latest").key == before["key"]
    again = ["encode-chats", files(["no"], "no.jsonl"), "--name", "set", "--root", str(root), "--workers", "1"]
    assert main([*again, "--tokenizer", "chat"]) == 2
    assert {path: path.read_text() for path in root.glob("set*/tags/latest")} == tags


def test_what_cannot_be_is_refused(root, files, three, build, tmp_path):
    path = files(MESSAGES, "rows.jsonl")
    files(MESSAGES[:2], "two.jsonl")
    (tmp_path / "other.toml").write_text("[sources.a]\nfile = 1\n")
    one = '[sources.a]\nfiles = ["rows.jsonl"]\n'
    (tmp_path / "bare.toml").write_text(f'{one}weight = 1\n[sources.b]\nfiles = ["two.jsonl"]\n')
    (tmp_path / "same.toml").write_text(f'{one}[sources.b]\nfiles = ["*.jsonl"]\n')
    for arguments, said in (
        ([path, "--by", "top"], "say how many to keep"),
        ([path, "--select", "3", "--by", "top"], "goes by a column"),
        ([path, "--select", "3", "--by", "top", "--column", "source"], "a column 'source' of their own"),
        ([path, "--replay", "text=1"], "outside 0 to 1"),
        ([path, "--replay", "text=0.999"], "more than max_epochs"),
        ([path, "--select", "3", "--replay", "text=0.05"], "replay: 5.0% of"),
        ([path, "--replay", "chat=0.1"], "chat is of kind checkpoint"),
        ([path, "--after", "chat"], "no cleaned set of chats"),
        ([three(), "--source", "a"], "says files and --source itself"),
        ([str(tmp_path / "gone.toml")], "no file"),
        ([str(tmp_path / "other.toml")], "a has 'file'"),
        ([str(tmp_path / "bare.toml")], "b: no weight"),
        ([str(tmp_path / "same.toml")], "is in b and in another set"),
        ([three(8, 1, 1), "--select", "2"], "leave none of sharegpt, messages"),
        ([str(tmp_path / "gone.jsonl")], "no such file"),
    ):
        assert said in build(*arguments, status=2)["error"], arguments
    assert "weights are" in build(three(-1, 1, 1), status=2)["error"]
    assert "pack them alike" in build(path, "--replay", "text=0.1", seq_len=256, status=2)["error"]


def test_numbers_and_vectors_are_kept_as_they_are(tmp_path):
    values = [1, 2.5, None, True, "3", 10**400, [1], [1, 2], [1, None], []]
    rows = [{"messages": [user(str(n)), assistant("a")], "n": value} for n, value in enumerate(values)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for kind, kept in (("number", [1.0, 2.5, None]), ("vector", [None, [1.0], [1.0, 2.0], []])):
        made = read_sets(Store(tmp_path / "root"), kind, [ChatSet("a", (str(path),))], {"n": kind})
        frame = made.scan().collect()
        assert frame["n"].to_list() == kept and frame.schema["n"] == BESIDE[kind]
        assert made.manifest["counts"]["chat.read"]["reasons"] == {"wrong_type": len(values) - len(kept)}
    with pytest.raises(InputError, match="two sets of files are called 'a'"):
        read_sets(Store(tmp_path / "root"), "n", [ChatSet("a", (str(path),))] * 2)


def test_the_flow_makes_what_the_command_makes(root, files, build, prefect):
    from gristmill.flows.sets.sft import build_sft

    path = files(MESSAGES, "rows.jsonl")
    told = build(path, "--select", "10")
    sets = [ChatSet("set", (path,))]
    again = build_sft(sets, "chat", str(root), name="set", seq_len=SEQ, choice=Choice(10), workers=1)
    assert (again["key"], again["counts"]) == (told["key"], told["counts"])
    form = build_sft.parameters
    assert form.required == ["chats", "tokenizer"] and form.properties["seq_len"]["title"] == "seq_len"
    assert set(form.definitions) == {"ChatSet", "Choice"}


def test_real_files_of_five_formats(root, tmp_path):
    """Of the manifest's SFT files every row is accounted for; the identity set's names are slots of a template."""
    names = (
        "fastchat-dummy_conversation.json", "lf-alpaca_en_demo.json", "lf-glaive_toolcall_en_demo.json",
        "lf-identity.json", "lf-v1_sft_demo.jsonl", "self-instruct-seed_tasks.jsonl",
    )  # fmt: skip
    sets = [ChatSet(name.partition(".")[0], (str(real(f"sft/{name}")),)) for name in names]
    store = Store(root)
    made = sft_set(store, sets, store.get("chat"), name="real", seq_len=2048, choice=Choice(1000))
    read = made.steps[0].manifest["counts"]["chat.read"]
    assert read["in"] == 500 + 999 + 300 + 91 + 500 + 175 and read["dropped"] == 0
    assert made.chosen[0].rows == made.data.manifest["stats"]["documents"] == 1000
    cleaned = store.get("real-clean").manifest["counts"]["sft.boilerplate"]["reasons"]
    assert cleaned["unfilled"] >= 84 + 49 and 60 <= cleaned["as_an_ai"] <= 75


def test_a_dataset_that_holds_no_chats_is_refused_by_its_name(root, build):
    store = Store(root)
    other = next(item for item in store.all() if item.kind == "checkpoint")
    assert f"{other.name} is of kind checkpoint" in build(other.name, "--name", "none", status=2)["error"]
    told = next(item for item in store.all() if item.kind == "rows" and "messages" not in item.schema().names)
    assert f"{told.name} holds no chats" in build(told.name, "--name", "none", status=2)["error"]
