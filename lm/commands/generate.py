"""Continue a text with a trained model, or chat with one that was made for it.

    python -m lm.generate --checkpoint=runs/quickstart --prompt="def "
    python -m lm.generate --checkpoint=runs/quickstart --prompt="import " --temperature=0        # greedy
    python -m lm.generate --checkpoint=runs/quickstart --prompt="class " --num=3 --top_k=40 --seed=1
    python -m lm.generate --checkpoint=t5-small --fill --prompt="the <extra_id_0> river"         # blanks in the text
    python -m lm.generate --checkpoint=starcoder2-3b --fill --prompt="def <fim_suffix>(x): return x + 1"
    python -m lm.generate --checkpoint=SmolLM2-135M-Instruct --chat --prompt="Why is the sky blue?"
    python -m lm.generate --checkpoint=model.gguf --chat --system="Answer in French."   # asks for each message
    python -m lm.generate --checkpoint=nllb --language=fra_Latn --temperature=0 --prompt="The river is old."

A checkpoint is a run's folder, a Hugging Face folder or a GGUF file. Prompt and continuation go to standard output, the
speed to standard error. An encoder-decoder reads the prompt and writes its output. The same flags give the same text.
"""

import io
import itertools
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from absl import flags

from lm.commands import cli
from lm.core.errors import UserError

CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Folder of a training run (its --workdir), Hugging Face folder, or .gguf file.", required=True
)
STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; the latest if not given.")
PROMPT = flags.DEFINE_string("prompt", None, "Text to continue, at least one character; a message with --chat.")
CHAT = flags.DEFINE_boolean("chat", False, "Answer --prompt, or one message after the other as they are typed.")
SYSTEM = flags.DEFINE_string("system", None, "With --chat: what the model is told first.")
TEMPLATE_ARGS = flags.DEFINE_string(
    "template_args",
    None,
    'With --chat: what else the model\'s chat template is given, in JSON: {"enable_thinking": false, "tools": [...]}.',
)
SPECIAL = flags.DEFINE_boolean(
    "special",
    False,
    "Take special tokens that are spelled in --prompt (<extra_id_0>, <|fim_prefix|>) for these, and show those that "
    "the model writes; otherwise they are text like any other.",
)
FILL = flags.DEFINE_boolean(
    "fill",
    False,
    "Fill in the blanks of --prompt and show the whole text: [MASK] and [gMASK] of a model that was trained to write "
    "spans behind the text, <extra_id_0> and so on of an encoder-decoder that was trained on sentinels; of a model "
    "that was trained to fill in middles one, its token for what comes behind: <fim_suffix>, <|fim_suffix|>, <SUF> ...",
)
MAX_NEW = flags.DEFINE_integer(
    "max_new", None, "Most tokens to add, in each blank; if not given 200, or what is left of the context trained on."
)
TEMPERATURE = flags.DEFINE_float("temperature", 0.8, "0: always the likeliest token; 1: the model's own odds.")
TOP_K = flags.DEFINE_integer("top_k", 0, "Draw from this many likeliest tokens only; 0: from all.")
TOP_P = flags.DEFINE_float("top_p", 0.95, "Draw from the fewest tokens of this probability; 1: from all.")
SEED = flags.DEFINE_integer("seed", 0, "Of the random draws.")
LANGUAGE = flags.DEFINE_string("language", None, "Of a translation: to write in, as fr_XX, fra_Latn or fr.")
SOURCE_LANGUAGE = flags.DEFINE_string(
    "source_language", None, "Of a translation: of the prompt; the model's if not given."
)
NUM = flags.DEFINE_integer("num", 1, "How many continuations.")
LEAST = 512  # positions of a chat's first programs, which serve it until it outgrows them; then twice as many
STREAM = flags.DEFINE_boolean("stream", True, "Print the (first) text as it grows, rather than at its end.")


def main(argv: list[str]) -> None:
    for flag, least in ((NUM, 1), (SEED, 0), (MAX_NEW, 1), (STEP, 0)):
        if flag.value is not None and flag.value < least:
            raise UserError(f"--{flag.name}={flag.value} must be at least {least}")
    if SYSTEM.value is not None and not CHAT.value:
        raise UserError("--system needs --chat")
    if SPECIAL.value and CHAT.value:
        raise UserError("--special is for texts: with --chat the model's template writes the special tokens")
    if FILL.value and CHAT.value:
        raise UserError("--fill is for texts: leave it out, or --chat")
    more = _template_args(TEMPLATE_ARGS.value)
    given = "" if CHAT.value and PROMPT.value is None else _check("--prompt", PROMPT.value)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that is not UTF-8 shows ? for what it lacks
    with cli.doing(f"opening {CHECKPOINT.value}"):
        from lm.infer.decoding import in_languages
        from lm.infer.prompt import check_writes, prompt_of
        from lm.open import open_any
        from lm.text.chat import chat_ids, text_ids

        opened = open_any(CHECKPOINT.value, STEP.value)
        check_writes(opened.model)
        opened = opened._replace(text=in_languages(opened.text, SOURCE_LANGUAGE.value, LANGUAGE.value))
    if FILL.value:
        _fill(opened, text_ids(opened.text, given, special=True))
        return
    writer = Writer(opened)
    if not CHAT.value:
        ids = text_ids(opened.text, given, SPECIAL.value)
        prompt = prompt_of(opened.model, opened.text, ids)
        writer(prompt, shown=() if prompt.encoder is not None else ids)
        return
    messages = [] if SYSTEM.value is None else [{"role": "system", "content": SYSTEM.value}]
    for message in [given] if given else _typed():
        messages.append({"role": "user", "content": message})
        # the template writes what stands before a text itself
        ids = chat_ids(opened.text, messages, **more)
        prompt = prompt_of(opened.model, opened.text._replace(before=()), ids)
        messages.append({"role": "assistant", "content": writer(prompt)})


class Writer:
    """Prints what an opened model makes of a prompt."""

    def __init__(self, opened: Any) -> None:
        import jax.numpy as jnp

        from lm.infer.decoding import decoding_of, lacks_language
        from lm.infer.generate import Generator
        from lm.infer.sampling import Sampler

        self.opened, self.text = opened, opened.text
        self.trained = opened.text.context or opened.config.data.length
        self.decoding = decoding_of(self.text)
        banned = self.decoding.banned, self.decoding.banned_first
        self.sampler = Sampler(TEMPERATURE.value, TOP_K.value, TOP_P.value, *banned)
        for note in self.decoding.notes:
            print(f"note: {note}", file=sys.stderr)
        if lacks_language(self.text):
            print("note: this model writes in several languages: choose one with --language", file=sys.stderr)
        dtype = jnp.dtype(opened.config.train.dtype)
        self.generator = Generator(opened.model, opened.params, dtype=dtype, least=LEAST if CHAT.value else 16)
        self.made: set[tuple[int, int]] = set()  # programs, by positions and how many of them are new

    def __call__(self, prompt: Any, shown: Any = ()) -> str:
        """The (first) text, after it is printed; `shown` are tokens to print before."""
        from lm.infer.generate import ENDED
        from lm.text.stream import TextStream

        read = len(prompt.ids)
        max_new = MAX_NEW.value or (min(200, self.trained - read) if read < self.trained else 200)
        begun, compiles = time.perf_counter(), self._compiles(read, max_new)
        steps = self.generator.stream(
            [prompt.ids] * NUM.value,
            max_new=max_new,
            sampler=self.sampler,
            seed=SEED.value,
            eos_id=self.text.ends,
            encoder=None if prompt.encoder is None else [prompt.encoder] * NUM.value,
            last=self.decoding.last,
        )
        silent = self.text.ends if SPECIAL.value else ()
        streams = [TextStream(self.text.tokenizer, SPECIAL.value, silent) for _ in range(NUM.value)]
        texts = [stream.push(*map(int, shown)) for stream in streams]
        with cli.doing("compiling for texts of this length, reading the prompt" if compiles else "reading the prompt"):
            head = list(itertools.islice(steps, 1))
        first, count = time.perf_counter(), 0
        _show(texts[0] if STREAM.value else "")
        for step, tokens in enumerate(itertools.chain(head, steps)):
            for row in (tokens != ENDED).nonzero()[0]:
                text = streams[row].push(int(tokens[row]))
                texts[row] += text
                count += step > 0
                _show(text if row == 0 and STREAM.value else "")
        last = time.perf_counter()
        for row, stream in enumerate(streams):
            end = stream.finish()
            texts[row] += end
            _show(f"\n--- {row + 1} of {NUM.value}\n" if row else "")
            _show(end if row == 0 and STREAM.value else texts[row])
        _show("\n")
        if read + max_new > self.trained:
            print(f"note: the model was trained on {self.trained} tokens at a time; this is longer", file=sys.stderr)
        speed = f"{count / (last - first):.0f} tokens/s" if count else "too short to time"
        start = f"{first - begun:.1f} s to {'compile and ' if compiles else ''}read the prompt"
        at = "" if self.opened.step is None else f"step {self.opened.step}: "
        print(f"{at}{speed}, after {start}", file=sys.stderr)
        return texts[0]

    def _compiles(self, read: int, max_new: int) -> bool:
        """Whether a prompt of that many tokens is the first of its bucket."""
        program = self.generator.cache_length(read, max_new), max_new
        new = program not in self.made
        self.made.add(program)
        return new


def _fill(opened: Any, ids: Any) -> None:
    """Print the text of these tokens with its blanks filled in."""
    import jax.numpy as jnp

    from lm.core.component import from_dict
    from lm.infer.blanks import fill
    from lm.infer.decoding import decoding_of
    from lm.infer.sampling import Sampler
    from lm.objectives.middle import middle_ids

    decoding = decoding_of(opened.text)
    sampler = Sampler(TEMPERATURE.value, TOP_K.value, TOP_P.value, decoding.banned, decoding.banned_first)
    begun = time.perf_counter()
    with cli.doing("compiling for texts of this length, filling it in"):
        texts = fill(
            opened.model,
            opened.params,
            opened.text,
            ids,
            num=NUM.value,
            max_new=MAX_NEW.value,
            trained=opened.text.context or opened.config.data.length,
            middle=middle_ids(from_dict(opened.config.objective.to_dict(), "config.objective"), opened.text.tokenizer),
            sampler=sampler,
            seed=SEED.value,
            dtype=jnp.dtype(opened.config.train.dtype),
        )
    for i, text in enumerate(texts):
        _show(f"\n--- {i + 1} of {NUM.value}\n" if i else "")
        _show(opened.text.tokenizer.decode(text, special=SPECIAL.value))
    _show("\n")
    at = "" if opened.step is None else f"step {opened.step}: "
    print(f"{at}{time.perf_counter() - begun:.1f} s to compile and fill in", file=sys.stderr)


def _template_args(given: str | None) -> dict[str, Any]:
    if given is None:
        return {}
    if not CHAT.value:
        raise UserError("--template_args needs --chat")
    try:
        value = json.loads(given)
    except ValueError as e:
        raise UserError(f'--template_args is not JSON ({e}): write {{"enable_thinking": false}}') from e
    if not isinstance(value, dict) or {"messages", "add_generation_prompt", "continue_final_message"} & value.keys():
        raise UserError('--template_args is no object of what a template takes: write {"enable_thinking": false}')
    return value


def _typed() -> Iterator[str]:
    """Lines, until an empty one or the end of input."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line


def _check(flag: str, text: str | None) -> str:
    if not text:
        raise UserError(f"{flag} is empty: give at least one character for the model to go on from")
    try:
        text.encode()
    except UnicodeEncodeError as e:  # bytes of the command line that are no UTF-8
        raise UserError(f"{flag} is not valid UTF-8 at character {e.start}: convert it") from e
    return text


def _show(text: str) -> None:
    print(text, end="", flush=True)


if __name__ == "__main__":
    cli.run(main, usage="--checkpoint=PATH --prompt=TEXT [--chat] [flags]")
