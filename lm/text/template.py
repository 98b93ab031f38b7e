"""Chat templates in Jinja, as tokenizer_config.json and chat_template.jinja have them: run in a sandbox, with all that
`transformers` passes to them."""

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lm.core.errors import UserError
from lm.text.format import TextFormat

Message = Mapping[str, Any]  # role (system, user, assistant, tool, ...) and content, and what else a template knows
REASONING = ("reasoning_content", "thinking", "reasoning")  # names that a message's reasoning goes by
HERE = "CONTINUE_FINAL_MESSAGE_HERE "
BEGIN, END = "\ue0b0\ue0b1", "\ue0b1\ue0b0"  # of private use, so that no text holds them


def render(
    text: TextFormat,
    messages: Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    template: str | None = None,
    marks: bool = False,
    **more: Any,
) -> str:
    """A chat as the model's template writes it, with the special tokens of its tokenizer (`bos_token`, ...).

    tools: JSON schemas of functions, for which a model may have a template of its own (`tool_use`); documents: what to
    answer from, as {"title", "text"}; add_generation_prompt: up to where an answer begins; continue_final_message: up
    to the end of the last message's content, to go on with that; template: the name of another of the model's
    templates; marks: what the template says the assistant wrote stands between BEGIN and END; more: whatever else a
    template asks for, as enable_thinking.

    Raises `UserError` for a model without template, and where that fails or refuses the messages."""
    source = _chosen(text, template, tools)
    chat = [_named(message) for message in messages]
    if continue_final_message:
        if add_generation_prompt or not chat or not isinstance(chat[-1].get("content"), str):
            raise UserError("continue_final_message needs a last message with content, and no add_generation_prompt")
        chat[-1]["content"] += HERE
    special = {f"{role}_token": piece for role, piece in text.tokenizer.special.items()}
    given = {"tools": tools, "documents": documents, "add_generation_prompt": add_generation_prompt}
    written = _run(source, {**special, **more, **given, "messages": chat}, marks)
    return _until_here(written) if continue_final_message else written


def _chosen(text: TextFormat, name: str | None, tools: Any) -> str:
    others = text.templates or {}
    if name is None and tools is not None and "tool_use" in others:
        name = "tool_use"
    if name is not None and name != "default":
        if name not in others:
            known = ", ".join(sorted(others)) or "none"
            raise UserError(f"this model has no chat template called {name!r}: those with a name are {known}")
        return others[name]
    if text.template is None:
        raise UserError("this model has no chat template: leave out --chat, and give a text to go on from")
    return text.template


def _named(message: Message) -> dict[str, Any]:
    """Without what is None, and its reasoning under the name that templates read."""
    fields = {key: value for key, value in message.items() if value is not None}
    reasoning = next((fields[key] for key in REASONING if key in fields), None)
    return fields if reasoning is None else {"thinking": reasoning, **fields, "reasoning_content": reasoning}


def _until_here(written: str) -> str:
    if (end := written.rfind(HERE.strip())) < 0:
        raise UserError("the chat template leaves out the end of the last message: continue_final_message has no place")
    kept = written[:end]
    return kept if written.startswith(HERE, end) else kept.rstrip()  # it was trimmed, and so would be the message


def _run(source: str, given: Mapping[str, Any], marks: bool = False) -> str:
    try:
        import jinja2
    except ImportError as e:
        raise UserError("a chat needs the package jinja2: pip install -e '.[hf]'") from e
    try:
        return _compiled(source, marks).render(**given)
    except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as e:
        raise UserError(f"the chat template fails ({' '.join(str(e).split())[:200]}): change the messages") from e


@functools.lru_cache(maxsize=8)
def _compiled(source: str, marks: bool = False) -> Any:
    import jinja2
    import jinja2.ext
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        """{% generation %} ... {% endgeneration %}: what the assistant wrote, which is written as it is."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_as_it_is"), [], [], body).set_lineno(line)

        def _as_it_is(self, caller: Any) -> str:
            return f"{BEGIN}{caller()}{END}" if marks else caller()

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _json
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda f: datetime.datetime.now().strftime(f)}
    return environment.from_string(source)


def _json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
