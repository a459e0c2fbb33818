"""OpenAI's real vocabulary against tiktoken and transformers; our own vocabularies against transformers."""

import json
import shutil
from pathlib import Path

import pytest
import tiktoken
from transformers import WhisperTokenizer
from whisper_vocabulary import special_names, text_ranks, write_folder

from lora_whisper.errors import CheckpointError, UnknownLanguage, UsageError
from lora_whisper.languages import WHISPER_LANGUAGES
from lora_whisper.model.tokenizer import Tokenizer, train_tokenizer

TEXTS = [
    " Zażółć gęślą jaźń, proszę!",
    " Olá, não há pão às três.",
    " Die Straße führt über den Fluß; 1.234,56 €.",
    " 你好,世界。今天是2024年3月5日。",
    " ひらがなとカタカナ",
    " Γειά σου Κόσμε· τι κάνεις;",
    " हिन्दी में स्वागत है",
    " สวัสดีครับ ยินดีต้อนรับ",
    " مرحبا بالعالم",
    " שלום עולם",
    " Đây là tiếng Việt có dấu",
    " 안녕하세요 세계",
    " I'll say it's 'don't' — we've  two   spaces\n\nand\tlines ",
    " 👩‍👩‍👧 emoji ♪♪ ½ ﬁ Å",
    "",
    "no space first",
    " <|en|> <|startoftranscript|> <|1.00|> spelled out <|endoftext|>",
]
PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    root = tmp_path_factory.mktemp("vocabulary")
    return {n: write_folder(root / str(n), n) for n in (99, 100)}


@pytest.fixture(scope="session")
def v2(folders: dict[int, Path]) -> Tokenizer:
    return Tokenizer.load(folders[99])


@pytest.fixture(scope="session")
def v3(folders: dict[int, Path]) -> Tokenizer:
    return Tokenizer.load(folders[100])


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return train_tokenizer(TEXTS * 3, vocab_size=400, languages=list(WHISPER_LANGUAGES))


def copied(folder: Path, target: Path, *, without: tuple[str, ...] = ()) -> Path:
    shutil.copytree(folder, target)
    for name in without:
        (target / name).unlink()
    return target


def test_ids_up_to_large_v2(v2: Tokenizer) -> None:
    assert (v2.eot, v2.sot, v2.language_token("en"), v2.language_token("su")) == (50257, 50258, 50259, 50357)
    assert (v2.translate, v2.transcribe, v2.sot_prev, v2.no_speech) == (50358, 50359, 50361, 50362)
    assert (v2.no_timestamps, v2.timestamp_begin, v2.n_vocab) == (50363, 50364, 51865)
    assert v2.languages == tuple(WHISPER_LANGUAGES)[:99]


def test_ids_from_large_v3_on(v3: Tokenizer) -> None:
    assert (v3.eot, v3.sot, v3.language_token("en"), v3.language_token("yue")) == (50257, 50258, 50259, 50358)
    assert (v3.translate, v3.transcribe, v3.sot_prev, v3.no_speech) == (50359, 50360, 50362, 50363)
    assert (v3.no_timestamps, v3.timestamp_begin, v3.n_vocab) == (50364, 50365, 51866)
    assert v3.languages == tuple(WHISPER_LANGUAGES)


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_encoded_as_tiktoken_does_and_comes_back(
    text: str, v2: Tokenizer, openai: tiktoken.Encoding
) -> None:
    ids = v2.encode(text)
    assert ids == openai.encode(text, disallowed_special=())
    assert v2.decode(ids) == text
    assert all(i < v2.eot for i in ids)


@pytest.fixture(scope="module")
def openai() -> tiktoken.Encoding:
    ranks = text_ranks()
    specials = {name: len(ranks) + i for i, name in enumerate(special_names(99))}
    return tiktoken.Encoding("openai", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=specials)


@pytest.mark.parametrize("n_languages", [99, 100])
@pytest.mark.parametrize("task", ["transcribe", "translate"])
@pytest.mark.parametrize("timestamps", [False, True])
def test_start_sequence_equals_transformers(
    n_languages: int, task: str, timestamps: bool, folders: dict[int, Path]
) -> None:
    ours, theirs = (
        Tokenizer.load(folders[n_languages]),
        WhisperTokenizer.from_pretrained(folders[n_languages]),
    )
    for code in ours.languages:
        theirs.set_prefix_tokens(language=code, task=task, predict_timestamps=timestamps)
        assert ours.start_sequence(code, task, timestamps) == theirs.prefix_tokens


def test_labels_hold_one_start_and_equal_transformers(v2: Tokenizer, folders: dict[int, Path]) -> None:
    text = " Dzień dobry <|startoftranscript|>"
    labels = [*v2.start_sequence("pl"), *v2.encode(text), v2.eot]
    assert labels.count(v2.sot) == 1
    assert labels[0] == v2.sot
    theirs = WhisperTokenizer.from_pretrained(folders[99], language="pl", task="transcribe")
    plain = " Dzień dobry"
    assert [*v2.start_sequence("pl"), *v2.encode(plain), v2.eot] == theirs(plain).input_ids


def test_unknown_task_and_language(v2: Tokenizer) -> None:
    with pytest.raises(UnknownLanguage, match=r"'yue'; this Whisper has en zh de"):
        v2.language_token("yue")
    with pytest.raises(UnknownLanguage, match="translate"):
        v2.language_token("translate")
    with pytest.raises(UsageError, match="transcribe or translate"):
        v2.start_sequence("en", task="summarise")


def test_timestamps(v2: Tokenizer) -> None:
    assert v2.timestamp(0) == v2.timestamp_begin
    assert v2.timestamp(1.0) == v2.special_tokens["<|1.00|>"]
    assert v2.timestamp(30) == v2.n_vocab - 1
    for i in range(1501):
        token = v2.timestamp_begin + i
        assert v2.is_timestamp(token)
        assert v2.timestamp(v2.seconds(token)) == token
        assert v2.special_tokens[f"<|{v2.seconds(token):.2f}|>"] == token
    assert not v2.is_timestamp(v2.no_timestamps)
    assert not v2.is_timestamp(v2.n_vocab)
    for time_s in (-0.1, 30.02):
        with pytest.raises(UsageError, match="between 0 and 30 s"):
            v2.timestamp(time_s)


def test_decode_leaves_special_tokens_and_timestamps_out(v2: Tokenizer) -> None:
    words = v2.encode(" tak")
    ids = [
        v2.sot_prev,
        *v2.start_sequence("pl", timestamps=True),
        v2.timestamp(0),
        *words,
        v2.timestamp(2),
        v2.eot,
    ]
    assert v2.decode(ids) == " tak"
    assert v2.decode([*words, v2.n_vocab + 7]) == " tak"  # a model may have more rows than tokens
    assert v2.decode(v2.encode("₿")[:1]) == "�"


def test_slow_files_equal_the_fast_one(v2: Tokenizer, folders: dict[int, Path], tmp_path: Path) -> None:
    slow = Tokenizer.load(copied(folders[99], tmp_path / "slow", without=("tokenizer.json",)))
    assert slow.special_tokens == v2.special_tokens
    for text in TEXTS:
        assert slow.encode(text) == v2.encode(text)
        assert slow.decode(slow.encode(text)) == text


@pytest.mark.parametrize("fast", [True, False])
def test_folders_without_timestamps_get_them(fast: bool, v2: Tokenizer, tmp_path: Path) -> None:
    old = Tokenizer.load(write_folder(tmp_path, 99, fast=fast, timestamps=False))
    assert old.special_tokens == v2.special_tokens


def test_added_tokens_are_found_in_tokenizer_config_too(
    v2: Tokenizer, folders: dict[int, Path], tmp_path: Path
) -> None:
    folder = copied(folders[99], tmp_path / "slow", without=("tokenizer.json", "added_tokens.json"))
    decoder = {str(i): {"content": name} for name, i in v2.special_tokens.items()}
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))
    assert Tokenizer.load(folder).special_tokens == v2.special_tokens


def test_older_name_of_no_speech(folders: dict[int, Path], tmp_path: Path) -> None:
    folder = copied(folders[99], tmp_path / "old")
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    (folder / "tokenizer.json").write_text(text.replace("<|nospeech|>", "<|nocaptions|>"), encoding="utf-8")
    assert Tokenizer.load(folder).no_speech == 50362


def test_a_language_added_by_fine_tuning_is_a_text_token(folders: dict[int, Path], tmp_path: Path) -> None:
    folder = copied(folders[99], tmp_path / "own")
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    own = {"id": 51865, "content": "Gdynia", "single_word": False, "lstrip": False, "rstrip": False}
    data["added_tokens"].append({**own, "normalized": False, "special": False})
    (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    tokenizer = Tokenizer.load(folder)
    assert 51865 in tokenizer.encode(" Jadę do Gdynia")
    assert tokenizer.decode(tokenizer.encode(" Jadę do Gdynia")) == " Jadę do Gdynia"


def test_no_tokenizer_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no tokenizer \(vocab.json is missing\)"):
        Tokenizer.load(tmp_path)


def test_damaged_tokenizer(folders: dict[int, Path], tmp_path: Path) -> None:
    folder = copied(folders[99], tmp_path / "cut")
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    (folder / "tokenizer.json").write_text(text[:1000], encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"cut: damaged tokenizer files .*download") as raised:
        Tokenizer.load(folder)
    assert "\n" not in str(raised.value)


def test_another_models_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1, "ab": 2}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    with pytest.raises(CheckpointError, match=r"no <\|endoftext\|>; not a Whisper one"):
        Tokenizer.load(tmp_path)


def test_gap_in_added_tokens(folders: dict[int, Path], tmp_path: Path) -> None:
    folder = copied(folders[99], tmp_path / "gap", without=("tokenizer.json",))
    added = json.loads((folder / "added_tokens.json").read_text())
    del added["<|pl|>"]
    (folder / "added_tokens.json").write_text(json.dumps(added))
    with pytest.raises(CheckpointError, match=r"<\|ca\|> has id 50270, but"):
        Tokenizer.load(folder)


def test_trained_vocabulary(trained: Tokenizer) -> None:
    assert trained.eot == 400
    assert trained.n_vocab == 400 + 108 + 1501
    assert trained.languages == tuple(WHISPER_LANGUAGES)
    assert list(trained.special_tokens)[:3] == ["<|endoftext|>", "<|startoftranscript|>", "<|en|>"]
    assert len(trained.encode(TEXTS[0])) < len(TEXTS[0].encode()) / 1.5  # it has learned something
    for text in [*TEXTS, " Ünseen: ქართული ენა"]:
        assert trained.decode(trained.encode(text)) == text


def test_training_is_reproducible(trained: Tokenizer) -> None:
    again = train_tokenizer(TEXTS * 3, vocab_size=400, languages=list(WHISPER_LANGUAGES))
    assert [again.encode(text) for text in TEXTS] == [trained.encode(text) for text in TEXTS]


@pytest.mark.parametrize("source", ["trained", "v2", "v3"])
def test_saved_folder_loads_here_and_in_transformers(
    source: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    ours: Tokenizer = request.getfixturevalue(source)
    ours.save(tmp_path / "all")
    slow = copied(tmp_path / "all", tmp_path / "slow", without=("tokenizer.json",))
    for folder in (tmp_path / "all", slow):
        again = Tokenizer.load(folder)
        theirs = WhisperTokenizer.from_pretrained(folder)
        assert again.special_tokens == ours.special_tokens
        assert len(theirs) == ours.n_vocab
        assert theirs.convert_tokens_to_ids(list(ours.special_tokens)) == list(ours.special_tokens.values())
        assert theirs.all_special_ids[-1] + 1 == ours.timestamp_begin  # transformers relies on it
        for text in TEXTS[:-1]:
            assert again.encode(text) == ours.encode(text) == theirs.encode(text, add_special_tokens=False)


def test_transformers_finds_every_trained_language(trained: Tokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path)
    theirs = WhisperTokenizer.from_pretrained(tmp_path)
    for code in trained.languages:
        theirs.set_prefix_tokens(language=code, task="transcribe", predict_timestamps=False)
        assert theirs.prefix_tokens == trained.start_sequence(code)
    ids = [*trained.start_sequence("pl", timestamps=True), trained.timestamp(0.5), *trained.encode(" tak")]
    assert theirs.decode(ids, skip_special_tokens=True) == " tak"
    assert "<|0.50|> tak" in theirs.decode(ids, decode_with_timestamps=True)


def test_saving_twice_gives_the_same_files(trained: Tokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path / "one")
    Tokenizer.load(tmp_path / "one").save(tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == [
        "added_tokens.json",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ]
    for name in names:
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        assert one == two, name
