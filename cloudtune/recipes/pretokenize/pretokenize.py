"""Rows for training as tokens of a model, packed to a length: from a file, a folder or the Hub, on processors alone.

Runs as it is: ``python pretokenize.py --model DIR --data rows.jsonl``; ``--help`` lists all options. What it leaves in
OUTPUT_DIR is ``train.arrow``, ``test.arrow`` if there are rows to test on, and ``tokens.json``, which says what they
were made with. The recipes sft and sft_neuron take that folder as their data. The same input gives the same bytes.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# in the package, what this recipe shares with others lies there; on a node it lies beside this file
sys.path += [str(Path(__file__).resolve().parent.parent / name) for name in ("sft", "prepare")]

import rows
from encoding import Encoder, Tokens, load_tokenizer, packed
from faults import explain
from options import Options, parse
from places import model_fault
from prepare import draft_of, say, sources
from tokens import RECORD, TEST, TRAIN, probe

#: Rows that are written at a time.
BATCH = 1000


def write(path: Path, sequences: Iterator[Tokens]) -> int:
    """Write sequences as a stream of Arrow under another name first; return how many."""
    import pyarrow as pa

    kinds = [(name, pa.list_(pa.int32())) for name in ("input_ids", "labels")]
    schema, draft, count = pa.schema(kinds), draft_of(path), 0
    try:
        with pa.OSFile(str(draft), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            batch: list[Tokens] = []
            for one in sequences:
                batch.append(one)
                count += 1
                if len(batch) == BATCH:
                    writer.write_batch(_batch(batch, schema))
                    batch = []
            if batch:
                writer.write_batch(_batch(batch, schema))
        if not count:
            raise rows.DataError(f"no row is left for {path.name}: none has a token that is learnt")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return count


def _batch(rows_of: list[Tokens], schema: Any) -> Any:
    import pyarrow as pa

    columns = zip(*rows_of, strict=True)
    return pa.record_batch(
        [pa.array(column, kind.type) for column, kind in zip(columns, schema, strict=True)], schema=schema
    )


def pretokenize(options: Options) -> None:
    """Write the files."""
    if fault := model_fault(options.model):
        raise rows.DataError(fault)
    if options.fetch_model and not Path(options.model).is_dir():
        from huggingface_hub import snapshot_download

        say(f"{options.model}: fetched to {snapshot_download(options.model, revision=options.revision)}")
    tokenizer = load_tokenizer(options)
    train, test = sources(options)
    output = Path(options.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    counts: dict[str, dict[str, int]] = {}
    for name, found in ((TRAIN, train), (TEST, test)):
        if found is None:
            continue
        encoder = Encoder(tokenizer, options)
        made = encoder.encoded(found)
        sequences = packed(made, options.max_length) if options.packing else made
        count = write(output / name, sequences)
        counts[name] = {"sequences": count, "rows": encoder.rows, "cut": encoder.cut, "tokens": encoder.tokens}
        counts[name]["learnt"] = encoder.learnt
        filled = encoder.tokens / (count * options.max_length)
        say(f"{output / name}: {encoder.rows} rows, {encoder.tokens} tokens in {count} sequences, {filled:.0%} full")
        if encoder.cut:
            say(f"{encoder.cut} rows were longer than {options.max_length} tokens and have been cut")
    told = {
        "recipe": "pretokenize",
        "run": os.environ.get("CLOUDTUNE_RUN_ID"),
        "model": options.model,
        "data": options.data,
        "maxLength": options.max_length,
        "packing": options.packing,
        "answersOnly": options.answers_only,
        "files": counts,
        "chatTemplate": tokenizer.chat_template,
        "probe": probe(tokenizer),
    }
    (output / RECORD).write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> int:
    """Parse the command line, make tokens, and tell in plain words what went wrong."""
    options = parse(sys.argv[1:])
    if os.environ.get("RANK", "0") != "0":
        return 0  # one process does it for all
    try:
        pretokenize(options)
    except (rows.DataError, OSError) as error:
        print(f"error: {explain(error, options) or error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
