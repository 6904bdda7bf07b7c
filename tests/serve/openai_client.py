"""Asks a server by OpenAI's client. By hand, with a server of any model: openai_client.py http://127.0.0.1:8080/v1 [KEY]"""

import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key=sys.argv[2] if len(sys.argv) > 2 else "none", max_retries=0, timeout=120)
models = [model.id for model in client.models.list()]
name = models[0]
assert client.models.retrieve(name).id == name

messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"}]
answer = client.chat.completions.create(model=name, messages=messages, max_tokens=20, temperature=0, seed=1)
[choice] = answer.choices
assert choice.message.role == "assistant" and choice.finish_reason in ("stop", "length"), answer
assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens, answer
assert 1 <= answer.usage.completion_tokens <= 20, answer

stream = client.chat.completions.create(
    model=name, messages=messages, max_tokens=20, temperature=0, stream=True, stream_options={"include_usage": True}
)
text, finish, usage, ids = "", None, None, set()
for chunk in stream:
    ids.add(chunk.id)
    usage = chunk.usage or usage
    for part in chunk.choices:
        text += part.delta.content or ""
        finish = part.finish_reason or finish
assert text == choice.message.content and finish == choice.finish_reason, (text, finish, answer)
assert usage == answer.usage and len(ids) == 1, (usage, answer)

answer = client.completions.create(model=name, prompt=["It is", "That"], max_tokens=8, n=2, seed=3, temperature=1.2)
assert [part.index for part in answer.choices] == [0, 1, 2, 3], answer
again = client.completions.create(model=name, prompt=["It is", "That"], max_tokens=8, n=2, seed=3, temperature=1.2)
assert [part.text for part in answer.choices] == [part.text for part in again.choices]
pieces = [part.choices[0].text for part in client.completions.create(model=name, prompt="It is", max_tokens=8, stream=True)]
assert len(pieces) > 1 or pieces[0] != "", pieces
extra = client.completions.create(model=name, prompt="It is", max_tokens=4, stop=["\n\n\n"], extra_body={"top_k": 1, "min_p": 0.1})
assert extra.choices[0].finish_reason in ("stop", "length")


def refused(kind, code, **request):
    try:
        client.chat.completions.create(**{"model": name, "messages": messages, **request})
    except kind as error:
        assert error.code == code, error
        return str(error)
    raise AssertionError(f"{request} was not refused")


assert "not-there" in refused(openai.NotFoundError, "model_not_found", model="not-there")
assert "max_tokens" in refused(openai.BadRequestError, None, max_tokens=0)
assert "logprobs" in refused(openai.BadRequestError, "unsupported_parameter", logprobs=True)
assert "messages" in refused(openai.BadRequestError, None, messages=[])

# A stream that is left.
with client.chat.completions.create(model=name, messages=messages, max_tokens=100, stream=True) as stream:
    next(iter(stream))
assert client.chat.completions.create(model=name, messages=messages, max_tokens=1).choices

if len(models) > 1:
    # The client asks for base64 by itself.
    vectors = client.embeddings.create(model=models[1], input=["a text", "another"])
    plain = client.embeddings.create(model=models[1], input=["a text", "another"], encoding_format="float")
    for one, other in zip(vectors.data, plain.data, strict=True):
        assert len(one.embedding) == len(other.embedding) > 1
        assert max(abs(a - b) for a, b in zip(one.embedding, other.embedding)) < 1e-5
    assert vectors.usage.prompt_tokens > 0
print(f"openai {openai.__version__}: all as expected")
