"""Chat templates: a plain one for tokenizers that have none, and what only training reads of one."""

import re

#: For tokenizers that have no template: words only, so that no new token must be learnt.
PLAIN_TEMPLATE = (
    "{{ bos_token if bos_token else '' }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant:' }}"
    "{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}{{ '\\n\\n' }}"
    "{% else %}{{ message['content'] + '\\n\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
GENERATION_MARK = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")


def portable(template: str) -> str:
    """Return a template without the marks that only training reads; servers need not know them."""
    return GENERATION_MARK.sub("", template)
