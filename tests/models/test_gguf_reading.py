"""GGUF files are read quickly, and say the same."""

from pathlib import Path

import gguf
import pytest
from transformers import AutoConfig, AutoTokenizer

from pipeline.errors import ConfigError
from pipeline.models import gguf_reading
from pipeline.models.gguf_reading import gguf_field, quick_gguf
from pipeline.models.source import locate

TOKENS = ["<unk>", "</s>", *"abcdefgh", "ab", "cd"]


@pytest.fixture(autouse=True)
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of a few tokens are long ones."""
    monkeypatch.setattr(gguf_reading, "LONG", 2)


def written(folder: Path, *, vocabulary_size: int | None = len(TOKENS)) -> Path:
    """A file without weights, with the lists of a tokenizer."""
    path = folder / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    if vocabulary_size:
        writer.add_vocab_size(vocabulary_size)
    writer.add_context_length(32)
    writer.add_embedding_length(16)
    writer.add_block_count(2)
    writer.add_feed_forward_length(24)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(TOKENS))
    writer.add_token_merges(["a b", "c d"])
    writer.add_eos_token_id(1)
    writer.add_license("mit")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_fields_behind_long_lists_are_found_and_the_lists_are_left_out(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert gguf_field(path, "tokenizer.ggml.pre") == "smollm"
    assert gguf_field(path, "tokenizer.ggml.eos_token_id") == 1
    assert gguf_field(path, "general.license") == "mit"
    assert gguf_field(path, "general.nothing") is None
    for name in ("tokens", "token_type", "merges"):
        assert not gguf_field(path, f"tokenizer.ggml.{name}")


@pytest.mark.parametrize("vocabulary_size", [len(TOKENS), None])
def test_configuration_and_tokenizer_are_what_transformers_makes_of_the_file(
    tmp_path: Path, vocabulary_size: int | None
) -> None:
    path = written(tmp_path, vocabulary_size=vocabulary_size)
    config = AutoConfig.from_pretrained(tmp_path, gguf_file=path.name)
    assert config.vocab_size == len(TOKENS)
    source = locate(str(tmp_path), path.name, None)
    assert source.eos_id == config.eos_token_id == 1
    assert source.config.to_dict() == config.to_dict()
    plain = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    with quick_gguf(tokens=True):
        quick = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    assert quick.backend_tokenizer.to_str() == plain.backend_tokenizer.to_str()
    assert quick.get_vocab() == plain.get_vocab()


def test_the_package_is_left_as_it_was(tmp_path: Path) -> None:
    reader, path = gguf.GGUFReader, written(tmp_path)
    with quick_gguf(tokens=False):
        assert gguf.GGUFReader is not reader
    assert gguf.GGUFReader is reader
    assert len(reader(path).fields["tokenizer.ggml.tokens"].data) == len(TOKENS)


def test_a_file_that_ends_within_a_list_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"tokenizer.ggml.tokens") + 60])
    with pytest.raises(ConfigError, match="no readable configuration"):
        locate(str(tmp_path), path.name, None).check()
