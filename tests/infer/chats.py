"""Chat templates of the shapes that published models have, written from scratch; with transformers this file also
records what it makes of them: python tests/infer/chats.py (writes chats.json)."""

import json
from pathlib import Path

RECORD = Path(__file__).with_name("chats.json")
ROLES = {"bos_token": "<s>", "eos_token": "</s>", "image_token": "<img>"}
TALK = [
    {"role": "system", "content": "Be <b>brief</b> & kind."},
    {"role": "user", "content": " hi é\n", "name": None},
    {"role": "assistant", "content": "Hello!  ", "reasoning": "greet back"},
    {"role": "user", "content": 'and "you"?'},
]
CALLS = [
    {"role": "user", "content": "Weather in Zürich?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Zürich"}}}],
    },
    {"role": "tool", "content": '{"t": 3}'},
]
BLOCKS = [
    {
        "role": "user",
        "content": [{"type": "text", "text": "what is "}, {"type": "image"}, {"type": "text", "text": "?"}],
    }
]
TOOLS = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"city": {"type": "string"}}, "description": "<é>"},
    }
]
DOCUMENTS = [{"title": "A", "text": "one"}, {"title": "B", "text": "two"}]

CHATML = """{%- if tools %}
    {{- '<|im_start|>system\\n# Tools\\n' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\\n') if message.content else '' %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- if message.reasoning_content is defined and loop.index0 > 0 %}
            {{- '<think>\\n' + message.reasoning_content.strip('\\n') + '\\n</think>\\n' }}
        {%- endif %}
        {% generation %}
        {{- content + '<|im_end|>' }}
        {% endgeneration %}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n' + (call.function | tojson(indent=2)) + '\\n</tool_call>' }}
        {%- endfor %}
        {{- '\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
INST = """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}
{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}
{% else %}
{% set loop_messages = messages %}
{% set system = '' %}
{% endif %}
{% for message in loop_messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('roles must alternate') }}
    {% endif %}
    {% set content = system + message['content'] if loop.first else message['content'] %}
    {% if message['role'] == 'user' %}
        {{ bos_token + '[INST] ' + content | trim + ' [/INST]' }}
    {% elif message['role'] == 'assistant' %}
        {{ ' ' + content | trim + ' ' + eos_token }}
    {% endif %}
{% endfor %}"""
SPARSE = """{{ bos_token }}{{ pad_token }}|{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}
{% if m.role == 'system' %}{% continue %}{% endif %}
{{ m | tojson }} {{ {'b': 1, 'a': '<é>'} | tojson(sort_keys=true, separators=(',', ':')) }}
{%- endfor %}|{{ documents is none }} {{ tools is none }} {{ tools is defined }} {{ x is defined }}"""
DOCS = """{% for document in documents %}{{ document.title }}: {{ document['text'] | upper }}
{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}"""
MEDIA = """{% for m in messages %}<start>{{ m.role }}
{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}
{% if part.type == 'image' %}{{ image_token }}{% else %}{{ part.text }}{% endif %}
{% endfor %}{% endif %}<end>
{% endfor %}"""
SCOPE = """{% set ns = namespace(n=0) %}{% macro say(x) %}[{{ x }}]{% endmacro %}
{% for m in messages %}{% generation %}{% set ns.n = ns.n + 1 %}{% set y = 5 %}{{ say(m.role) }}
{%- endgeneration %}{% endfor %}
{{ ns.n }}{{ y is defined }} {{ messages | selectattr('role', 'equalto', 'user')
| map(attribute='content') | join('/') }}
{{ dict(a=1).items() | list }} {{ range(3) | list }} {{ 'a b'.split() }} {{ (messages | last).content[::-1] }}"""

CHATS = {  # name -> template, messages, what else is given
    "chatml": (CHATML, TALK, {"add_generation_prompt": True}),
    "chatml whole": (CHATML, TALK, {"add_generation_prompt": False}),
    "chatml tools": (CHATML, CALLS, {"add_generation_prompt": True, "tools": TOOLS}),
    "chatml unthinking": (CHATML, TALK, {"add_generation_prompt": True, "enable_thinking": False}),
    "chatml go on": (CHATML, TALK[:3], {"add_generation_prompt": False, "continue_final_message": True}),
    "inst": (INST, TALK, {"add_generation_prompt": True}),
    "inst go on": (INST, TALK[:3], {"add_generation_prompt": False, "continue_final_message": True}),
    "sparse": (SPARSE, TALK, {"add_generation_prompt": True}),
    "sparse tools": (SPARSE, TALK, {"add_generation_prompt": True, "tools": [], "x": None}),
    "documents": (DOCS, TALK[1:2], {"add_generation_prompt": True, "documents": DOCUMENTS}),
    "media": (MEDIA, BLOCKS, {"add_generation_prompt": True}),
    "scope": (SCOPE, TALK, {"add_generation_prompt": True}),
}


def record():
    import transformers
    from transformers.utils.chat_template_utils import _normalize_chat_messages, render_jinja_template

    found = {}
    for name, (template, messages, given) in CHATS.items():
        chat = _normalize_chat_messages(messages)
        (found[name],), _ = render_jinja_template([chat], chat_template=template, **ROLES, **given)
    found["transformers"] = transformers.__version__
    RECORD.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
