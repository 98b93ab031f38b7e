"""transformers' Phi3: fused projections, and a rotary scaling of long texts that other files call `su` or `yarn`."""

from lm.core.errors import UserError
from lm.hub.tables.classes import generation_classes
from lm.hub.tables.decoders import FUSED_GATE, decoder_fields, decoder_names
from lm.hub.tables.format import ANY_TOKENIZER, Config, Custom, HFFormat, Knob, Knobs, Unused
from lm.hub.tables.rope import NEW, OLD, ORIGINAL, Rope
from lm.hub.tables.tensor_names import fused_names

ROPE = Rope(fraction=1.0, longest=4096, original_beside=True, reread=True)


def _read(config: Config) -> Knobs:
    """`su` and `yarn` are earlier names of longrope here; `original_max_position_embeddings` stands beside the dict."""
    given = ROPE.given(config)
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in ("default", "longrope", "su", "yarn"):
        raise UserError(f"rope_type={kind!r} is not supported for this model type: only 'longrope'")
    given["rope_type"] = "default" if kind == "default" else "longrope"
    rest = {name: value for name, value in config.items() if name != OLD}
    return ROPE.read({ORIGINAL: ROPE.longest, **rest, NEW: given})


MODEL_TYPES = {
    "phi3": HFFormat(
        "phi3",
        generation_classes("Phi3"),
        decoder_fields(
            Custom(ROPE.keys, _read, ROPE.write),
            Knob("window", "sliding_window", None),
            Knob("eps", "rms_norm_eps", 1e-5),
            Unused("resid_pdrop", "embd_pdrop"),
        ),
        decoder_names(fused_names("self_attn.qkv_proj", "self_attn.o_proj"), FUSED_GATE),
        tokenizer=ANY_TOKENIZER,
        tokenizer_always=True,
    )
}
