"""What travels with a model."""

from __future__ import annotations

from cloudtune.weights.files.assembly import stream
from cloudtune.weights.files.companions import as_it_is, companions_of
from cloudtune.weights.files.folder import folder_at


def test_what_travels_with_a_model():
    tokenizer = ["tokenizer.json", "tokenizer.model", "chat_template.jinja", "vocab.txt", "merges.txt"]
    others = ["generation_config.json", "LICENSE", "LICENSE.md", "USE_POLICY.txt", "modeling_own.py"]
    stays = ["README.md", "model.safetensors", "config.json", "below/tokenizer.json", "optimizer.bin"]
    stays += ["tokenizer.json.part", "LICENSE.part"]  # downloads that are not complete
    assert companions_of([*tokenizer, *others, *stays]) == (*tokenizer, *others)
    assert companions_of([*tokenizer, *others, *stays], tokenizer_only=True) == tuple(tokenizer)


def test_it_travels_as_it_is(tmp_path):
    (tmp_path / "LICENSE").write_bytes(b"free\r\n")
    output = as_it_is(folder_at(str(tmp_path)), "LICENSE")
    assert (output.name, output.size) == ("LICENSE", 6)
    assert b"".join(bytes(block) for piece in output.pieces for block in stream(piece)) == b"free\r\n"
