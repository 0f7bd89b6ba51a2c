"""One question, a second one that goes on from the answer, and what both cost."""

import phi4mini

with phi4mini.load("demo", quant="bf16") as model:
    about = "You answer questions about countries. Answer in one short sentence. Name what was asked for. " * 4
    messages = [{"role": "system", "content": about}, {"role": "user", "content": "What is the capital of France?"}]
    reply = model.chat(messages, max_new_tokens=40)
    print(reply.content)

    messages += [{"role": "assistant", "content": reply.content}, {"role": "user", "content": "And of Italy?"}]
    reply = model.chat(messages, max_new_tokens=40)
    print(reply.content)

    # What the first question computed lies in the KV cache, in pages of 64 tokens, and was not computed again.
    print(f"{reply.usage.prompt_tokens} tokens of prompt, {reply.usage.cached_tokens} of them cached")
