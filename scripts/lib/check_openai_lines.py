"""Every line of the files is parsed by the types of OpenAI's client, strictly."""

import copy
import json
import sys

from openai.types import Completion
from openai.types.chat import ChatCompletion


def without_first_nulls(body):
    """The types want numbers, and the service itself gives null for a token that nothing stands before."""
    body = copy.deepcopy(body)
    for choice in body["choices"]:
        lists = choice["logprobs"] or {}
        for name, value in (("token_logprobs", 0.0), ("top_logprobs", {})):
            if lists.get(name) and lists[name][0] is None:
                lists[name][0] = value
    return body


def check_line(line):
    assert set(line) == {"id", "custom_id", "response", "error"}, sorted(line)
    assert line["id"].startswith("batch_req_") and len(line["id"]) == len("batch_req_") + 24, line["id"]
    if line["response"] is None:
        assert set(line["error"]) == {"code", "message"}, line["error"]
        return "failed"
    assert line["error"] is None
    response = line["response"]
    assert response["status_code"] == 200 and response["request_id"], response
    body = response["body"]
    if body["object"] == "chat.completion":
        parsed = ChatCompletion.model_validate(body, strict=True)
    else:
        parsed = Completion.model_validate(without_first_nulls(body), strict=True)
    assert [choice.index for choice in parsed.choices] == list(range(len(parsed.choices)))
    assert parsed.usage.total_tokens == parsed.usage.prompt_tokens + parsed.usage.completion_tokens
    unknown = set(body) - set(type(parsed).model_fields)
    assert not unknown, unknown
    return body["object"]


def main(files):
    counts = {}
    for file in files:
        with open(file, encoding="utf-8") as lines:
            for number, text in enumerate(lines, 1):
                try:
                    kind = check_line(json.loads(text))
                except Exception as fault:
                    sys.exit(f"{file}:{number}: {fault}")
                counts[kind] = counts.get(kind, 0) + 1
    print(", ".join(f"{kind}: {count}" for kind, count in sorted(counts.items())) or "no lines")


if __name__ == "__main__":
    main(sys.argv[1:])
