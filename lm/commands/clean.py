"""Clean a corpus: drop what is no text, what repeats itself, what is there twice, and say why.

    python -m lm.clean pages.jsonl --out=cleaned                     # Gopher's rules and exact duplicates
    python -m lm.clean corpus/ --pattern="*.md" --out=cleaned --transforms=QualityRules,NearDuplicates
    python -m lm.clean pages.jsonl --out=cleaned --transforms='[{"type": "InLanguages", "languages": ["en"]}]'

The folder gets `documents.jsonl`, with the text, name and further --keep fields of each document that is left, and
`dropped.json`, a report of how many were dropped for what reason, with examples, which is printed too. In a training
run the same is `config.data.transforms`, without a copy of the corpus. Sources are as in training: files, folders,
JSON lines, tables, Parquet, compressed or not.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from lm.commands import cli
from lm.core.errors import UserError

if TYPE_CHECKING:
    from lm.data.transforms.transform import DocumentTransform

FLAGS = flags.FlagValues()  # its own, so that several command lines can be imported into one process
OUT = flags.DEFINE_string("out", None, "Folder to write to; it must not hold a cleaned corpus.", flag_values=FLAGS)
TRANSFORMS = flags.DEFINE_string(
    "transforms",
    "QualityRules,RepetitionRules,ExactDuplicates",
    "What is done to each document, in order: names, or JSON with their knobs.",
    flag_values=FLAGS,
)
FIELD = flags.DEFINE_string(
    "field", "text", "Field of JSON, or column of a table, that is the text.", flag_values=FLAGS
)
PATTERN = flags.DEFINE_string("pattern", "*.txt", "Files of a folder.", flag_values=FLAGS)
KEEP = flags.DEFINE_list("keep", [], "Further fields of each record to write.", flag_values=FLAGS)
USAGE = "SOURCE --out=FOLDER [flags]"
DOCUMENTS, REPORT = "documents.jsonl", "dropped.json"


def main(argv: list[str]) -> None:
    from lm.data.sources import open_source
    from lm.data.transforms.transform import TransformedSource, fields_of

    transforms = described_by(TRANSFORMS.value)
    if len(argv) < 2:
        raise UserError("a source is missing: give a file or folder, as lm clean pages.jsonl --out=cleaned; see --help")
    if not OUT.value:
        raise UserError(cli.lacking("out", FLAGS, USAGE))
    out = Path(OUT.value).expanduser()
    if (out / DOCUMENTS).exists():
        raise UserError(f"--out={out} holds a cleaned corpus already: choose another folder")
    fields = fields_of(transforms, FIELD.value) or (FIELD.value,) * bool(KEEP.value)
    fields += tuple(name for name in KEEP.value if name not in fields)
    source = open_source(
        argv[1],
        "validation",
        validation=argv[1],  # all of its documents
        pattern=PATTERN.value,
        field=FIELD.value,
        fields=fields,
    )
    cleaned = TransformedSource(source, transforms)
    try:
        out.mkdir(parents=True, exist_ok=True)
        unfinished = out / f".{DOCUMENTS}"
        with cli.doing(f"reading {argv[1]}"), unfinished.open("w", encoding="utf-8") as file:
            for document in cleaned.documents():
                if document.text:
                    record: dict[str, Any] = {"text": document.text, "name": document.name}
                    record |= {name: document.values.get(name) for name in KEEP.value}
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
        report = json.dumps(cleaned.report.as_dict(), indent=1, ensure_ascii=False) + "\n"
        (out / REPORT).write_text(report, encoding="utf-8")
        unfinished.rename(out / DOCUMENTS)
    except OSError as e:
        raise UserError(f"cannot write to {out} ({e.strerror}): choose a folder with room to write to") from e
    print(cleaned.report)
    print(f"written to {out / DOCUMENTS}; the report to {out / REPORT}")


def described_by(given: str) -> "tuple[DocumentTransform, ...]":
    """The transforms that a flag names, or describes as JSON. Raises `UserError`."""
    from lm.data.open import transforms_of

    if given.lstrip().startswith(("[", "{")):
        try:
            described = json.loads(given)
        except ValueError as e:
            raise UserError(f'--transforms is not JSON ({e}): write [{{"type": "QualityRules"}}]') from e
        described = described if isinstance(described, list) else [described]
    else:
        described = [{"type": name.strip()} for name in given.split(",") if name.strip()]
    try:
        return transforms_of(described)
    except UserError as e:
        raise UserError(str(e).replace("config.data.transforms", "--transforms")) from e


if __name__ == "__main__":
    cli.run(main, arguments=1, usage=USAGE, flag_values=FLAGS)
