"""transformers' Ernie: Bert, and a table of tasks in the later ones."""

from lm.hub.tables.encoders import encoder_classes, encoder_fields, pretrained_names
from lm.hub.tables.format import Config, Custom, HFFormat, Knobs
from lm.hub.tables.tensor_names import SAME, TensorNames


def _read(config: Config) -> Knobs:
    return {"tasks": config.get("task_type_vocab_size", 3) if config.get("use_task_id", False) else 0}


def _write(knobs: Knobs) -> dict:
    return {"use_task_id": knobs["tasks"] > 0, "task_type_vocab_size": knobs["tasks"] or 3}


def _names(config: Config) -> TensorNames:
    tasks = ("body/embed/tasks/w", "ernie.embeddings.task_type_embeddings.weight", SAME)
    return (*pretrained_names("ernie.")(config), tasks)


TASKS = Custom(("use_task_id", "task_type_vocab_size"), _read, _write)
MODEL_TYPES = {
    "ernie": HFFormat(
        "ernie", encoder_classes("Ernie", "ernie."), encoder_fields(TASKS), _names, "ernie.", tokenizer="BertTokenizer"
    )
}
