"""Pieces of grammar. A folder's `*.lark.jinja` is rendered for each request with the chat template's variables, and holds decoding."""
from __future__ import annotations

import json
import re

# A text of the request, on one line: a line feed ends a step, and would be cut in two where it is escaped.
LINE = "(%s | replace('\\n', ' '))"
# That text as the content of a JSON string of the answer, and this as a JSON string again: what `%regex` takes.
ESCAPED = "{{ (" + LINE + " | tojson)[1:-1] | tojson }}"
PLAIN = "{{ " + LINE + " | tojson }}"


def quoted(text: str) -> str:
    """A text as a Lark literal."""
    return json.dumps(text, ensure_ascii=False)


def either(options: list[str]) -> str:
    """`a | b | c`, over several lines."""
    return "\n  | ".join(options)


def alternatives(rule: str, options: list[str]) -> str:
    """`rule: a | b | c`."""
    return f"{rule}: {either(options)}\n"


def span(name: str, expression: str) -> str:
    """A terminal that matches any run of whole words of a text of the request, not empty and without blanks at its ends; `expression` is Jinja."""
    return f'{name}: {name}_WORDS & /[^ ](.*[^ ])?/\n{name}_WORDS: %regex {{ "substring_words": {PLAIN % expression} }}\n'


def quoted_span(name: str, expression: str) -> str:
    """The same as a JSON string, quotation marks included: within one terminal nothing is greedy, and a mark in the text ends nothing."""
    return f'{name}: ("\\"" {name}_WORDS "\\"") & /"[^ "](.*[^ ])?"/\n{name}_WORDS: %regex {{ "substring_words": {ESCAPED % expression} }}\n'


def holds(text: str, value: str) -> bool:
    """Whether `value` is a run of whole words of the text, as `span` and `quoted_span` hold it."""
    start, end = (r"(?<!\w)" if value[:1].isalnum() else "", r"(?!\w)" if value[-1:].isalnum() else "")
    return bool(value) and value == value.strip(" ") and re.search(start + re.escape(value) + end, text.replace("\n", " ")) is not None


def calls(head: str, argument: str, separator: str, tail: str) -> str:
    """Jinja for one rule a method of `messages[-1].content.methods`, and `call` over all of them. `head` is a Jinja expression over `service`
    and `method`, `argument` one over `parameter`, each the literal text that stands there; `value` is the caller's rule."""
    return (
        '{{- "\\n" -}}{%- set methods = messages[-1].content.methods -%}\n'
        '{%- for service, of in methods.items() -%}{%- set s = loop.index -%}{%- for method in of -%}\n'
        '{{- ("call: " if loop.first and s == 1 else " | ") ~ "call_" ~ s ~ "_" ~ loop.index -}}\n'
        '{%- endfor -%}{%- endfor -%}{{- "\\n" -}}\n'
        '{%- for service, of in methods.items() -%}{%- set s = loop.index -%}{%- for method, parameters in of.items() -%}\n'
        '{%- set at = s ~ "_" ~ loop.index -%}\n'
        f'{{{{- "call_" ~ at ~ ": " ~ ({head} | tojson) -}}}}\n'
        f"{{{{- (' [argument_' ~ at ~ ' ({quoted(separator)} argument_' ~ at ~ ')*]') if parameters else '' -}}}}\n"
        f"{{{{- ' {quoted(tail)}' ~ \"\\n\" -}}}}\n"
        '{%- for parameter in parameters -%}\n'
        f'{{{{- (("argument_" ~ at ~ ": (") if loop.first else " | ") ~ ({argument} | tojson) ~ (") value\\n" if loop.last else "") -}}}}\n'
        '{%- endfor -%}\n'
        '{%- endfor -%}{%- endfor -%}\n'
    )


def names(lead: str, items: str, item: str) -> str:
    """Jinja for one rule that is any of the literals `item` over `items`."""
    return f'{{{{- "\\n" -}}}}{{%- for x in {items} -%}}{{{{- ("{lead}: " if loop.first else " | ") ~ ({item} | tojson) ~ ("\\n" if loop.last else "") -}}}}{{%- endfor -%}}\n'
