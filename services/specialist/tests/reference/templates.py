"""What Python's jinja2 makes of the constructs that a grammar template or a chat template may use, set up as transformers sets it up
and with `tojson` as services/trainer overrides it. The test renders the same templates with this crate's environment.

    python services/specialist/tests/reference/templates.py > services/specialist/tests/reference/templates.json

needs: jinja2.
"""

import json

import jinja2

env = jinja2.Environment(autoescape=False, trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
env.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)

TEXTS = [
    "play some jazz",
    "she said \"on time\", and 'soon' \\ back\\slash // /* # {{ x }} {% if %}",
    "line one\nline two\r\n\ttabbed \b\f\u0000\u0001\u007f",
    "Zoë's café 東京 🙂 \u2028 \u00a0 e\u0301",
    "",
    "x",
]
OBJECT = {
    "methods": {"Rides_1": {"GetRide": ["destination", "seats"]}, "Café \"1\"": {"Böök": []}},
    "turns": ["a cab, please", "to \"Newark\"\nnow"],
    "dialogue": [{"speaker": "user", "text": "hi"}, {"speaker": "system", "text": "hello \\ there"}],
    "slots": ["a", "b"],
    "user": "I said \"two\"",
    "numbers": [0, -1, 2.0, 2.5, 1e16, 1.5e-7, 123456789012345678, True, False, None],
    "empty": {},
}
OF_TEXT = [
    "{{ messages[-1].content | tojson }}",
    "{{ (messages[-1].content | tojson)[1:-1] | tojson }}",
    "{{ messages[-1]['content'][1:-1] }}|{{ messages[0].content[:3] }}|{{ messages[0].content[-2:] }}|{{ messages[0].content[::2] }}",
    "{%- set c = messages[-1].content -%}\n{{- c | replace('\\n', ' ') | replace('\\r', ' ') | tojson -}}\n",
    "{{ messages[-1].content.replace('\"', '') | tojson }}|{{ messages[-1].content.split() | tojson }}|{{ messages[-1].content.split(' ')[0] | tojson }}",
    "{{ messages[-1].content.strip() | tojson }}{{ messages[-1].content | trim | upper | tojson }}{{ messages[-1].content | length }}",
    "{% macro span(name, text) %}\n{{ name }}: %regex { \"substring_words\": {{ (text | tojson)[1:-1] | tojson }} }\n{% endmacro %}\n{{ span('SPAN', messages[-1].content) }}{{ span('OTHER', 'x' ~ messages[-1].content) }}",
    "{% set ns = namespace(found=false, n=0) %}\n{% for w in messages[-1].content.split() %}\n{% set ns.n = ns.n + 1 %}\n{% if w == 'jazz' %}{% set ns.found = true %}{% endif %}\n{% endfor %}\n{{ ns.n }} {{ ns.found }} {{ task }}",
    "start: A\n{# a comment #}\nA: {% for w in messages[-1].content.split() %}{% if not loop.first %} | {% endif %}{{ w | tojson }}{% else %}\"\"{% endfor %}\n",
    "{% for w in messages[-1].content.split() %}{% if loop.index > 2 %}{% break %}{% endif %}{{ loop.index0 }}{{ w }}{% if not loop.last %},{% endif %}{% endfor %}",
    "{{ 'mapping' if messages[-1].content is mapping else 'text' }} {{ messages[-1].content is string }} {{ messages[0].content is defined }} {{ nothing is defined }}",
    "    {% if messages[-1].content %}\n  kept\n    {% endif %}\n\ntail\n",
    "{{ messages | length }}{{ messages[0].role }}{{ (messages | last).content | tojson }}{{ messages | map(attribute='role') | join(',') }}",
]
OF_OBJECT = [
    "{{ messages[-1].content | tojson }}",
    "{{ messages[-1].content | tojson(indent=2) }}",
    "{% for service, methods in messages[-1].content.methods.items() %}{% for method, parameters in methods.items() %}{{ service ~ '.' ~ method ~ '(' ~ (parameters | join(', ')) ~ ')\\n' }}{% endfor %}{% endfor %}",
    "METHOD: {% for s in messages[-1].content.methods %}{{ '' if loop.first else ' | ' }}{{ s | tojson }}{% endfor %}\n",
    "{% set c = messages[-1].content %}\n{% set said = c.turns | join(' ') %}\n{{ said | tojson }} {{ (c.turns | join('\\n') | tojson)[1:-1] | tojson }}",
    "{{ messages[-1].content.numbers | tojson }}",
    "{% for turn in messages[-1].content.dialogue %}{{ ('>' if turn.speaker == 'user' else '<') ~ ' ' ~ turn.text ~ '\\n' }}{% endfor %}",
    "{{ messages[-1].content.get('user') | tojson }}{{ messages[-1].content.get('no', 'other') }}{{ messages[-1].content['user'][1:-1] }}",
    "{{ messages[-1].content.dialogue | map(attribute='text') | join(' | ') | tojson }} {{ messages[-1].content.dialogue | selectattr('speaker', 'equalto', 'user') | map(attribute='text') | list | tojson }}",
    "{{ messages[-1].content.keys() | list | tojson }}{{ messages[-1].content.slots | length }}{{ messages[-1].content.slots[-1] }}{{ messages[-1].content.slots[:1] | tojson }}",
    "{{ 'x' if messages[-1].content.empty else 'none' }}{{ messages[-1].content.absent is defined }}{{ messages[-1].content.methods is mapping }}{{ messages[-1].content.turns is iterable }}{{ 'a' in messages[-1].content.slots }}{{ 'user' in messages[-1].content }}",
    "{% macro words(name, text) -%}\n{{ name }}: %regex { \"substring_words\": {{ text | tojson }} }\n{%- endmacro %}\n{% for turn in messages[-1].content.turns %}\n{{ words('T' ~ loop.index, turn) }}\n{% endfor %}\nSPAN: {% for turn in messages[-1].content.turns %}{{ ' | ' if not loop.first }}T{{ loop.index }}{% endfor %}\n",
]


def rows(templates, contents):
    for template in templates:
        for content in contents:
            variables = {"messages": [{"role": "user", "content": content}], "task": "plan", "bos_token": "<s>", "eos_token": "</s>"}
            rendered = env.from_string(template).render(**variables, add_generation_prompt=True)
            yield {"template": template, "content": content, "rendered": rendered}


everything = [*rows(OF_TEXT, TEXTS), *rows(OF_OBJECT, [OBJECT])]
print("[\n" + ",\n".join(json.dumps(row) for row in everything) + "\n]")
