"""Which tokens of a chat the assistant wrote, as transformers says: chats/masks.json.

.venv/torch/bin/python -m tests.golden.chats
"""

import itertools
import json
from pathlib import Path

FILE = Path(__file__).parent / "chats" / "masks.json"

# In the ways of ChatML, of LLaMA 3 (a header, an empty line, trimmed contents) and of Mistral (turns in brackets, a
# space before the answer), one that ends an answer outside the mark, and one that marks a role's name too.
TURN, SAYS, DONE = (
    "'<|turn|>' + m.role",
    "{% if m.role == 'assistant' %}{% generation %}",
    "{% endgeneration %}{% else %}",
)
TEMPLATES = [
    "{% for m in messages %}{{ "
    + TURN
    + r" + '\n' }}"
    + SAYS
    + "{{ m.content }}{{ '<|end|>' }}"
    + DONE
    + r"{{ m.content + '<|end|>' }}{% endif %}{{ '\n' }}{% endfor %}",
    "{%- for m in messages %}{{- "
    + TURN
    + r" + '\n\n' }}"
    + SAYS
    + "{{- m['content'] | trim + eos_token }}"
    + DONE
    + "{{- m['content'] | trim + eos_token }}{%- endif %}{%- endfor %}",
    "{% for m in messages %}"
    + SAYS
    + " {{ m.content }}{{ eos_token }}"
    + DONE
    + "[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}",
    "{% for m in messages %}{{ m.role }}: "
    + SAYS
    + "{{ m.content }}"
    + DONE
    + "{{ m.content }}{% endif %}<|end|>{% endfor %}",
    "{% for m in messages %}"
    + SAYS
    + "<|turn|>assistant {{ m.content }}\n"
    + DONE
    + "<|turn|>{{ m.role }} {{ m.content }}\n{% endif %}{% endfor %}",
]
CHATS = [
    [("user", "Hello"), ("assistant", "Hi there.")],
    [
        ("system", "Be brief."),
        ("user", "  two\nlines "),
        ("assistant", " é, 漢字 and 🙂 "),
        ("user", "more"),
        ("assistant", ""),
    ],
    [("user", "assistant"), ("assistant", "user"), ("user", "Hi there."), ("assistant", "Hi there.")],
]


def messages(chat: list) -> list[dict]:
    return [{"role": role, "content": content} for role, content in chat]


def main() -> None:
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    from tests.hub.chat_model import tokenizer_json

    made = []
    for template, chat in itertools.product(TEMPLATES, CHATS):
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizers.Tokenizer.from_str(tokenizer_json()),
            eos_token="<|end|>",
            chat_template=template,
        )
        options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
        found = fast.apply_chat_template(messages(chat), **options)
        made.append({"ids": found["input_ids"], "mask": found["assistant_masks"]})
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    main()
