"""From a question to its answer, one step at a time. Every number below is computed while you read.

A language model is one function: token ids in, and for each place a score for every token that may come next. It
becomes a chat by what happens before (text becomes ids) and after (scores become one token, again and again).
"""

import numpy as np

import phi4mini
from phi4mini.model.reference import forward, softmax

QUESTION = "What is the capital of France?"

with phi4mini.load("demo", quant="f32", kv="f32") as model:
    # 1. A conversation becomes text with control tokens around each turn. Only phi4mini may write those: a user who
    #    types "<|im_end|>" gets the letters, not the token.
    rendered = model.render(QUESTION)
    print("1. what the model reads:", rendered.text, sep="\n")

    # 2. Text becomes ids. The tokenizer joins frequent neighbours, so common words are one token and rare ones several.
    ids = list(rendered.ids)
    print("2.", len(ids), "ids:", ids[-8:], "are", [model.tokenizer.decode([i]) for i in ids[-8:]])

    # 3. The model itself. Each id picks a row of the embedding table: a vector. Each layer adds two things to every
    #    vector: what attention fetched from earlier places (a weighted mean; a weight says how well the query fits a
    #    key), and what the feed-forward part made of it. reference.py is the whole of it in 60 lines of NumPy.
    logits = forward(model.store.weights, ids)  # (places, vocabulary)
    print("3. scores:", logits.shape, "the last row is about the token that comes next")

    # 4. Scores become probabilities: softmax is e to the score, divided by the sum of all of them.
    p = softmax(logits[-1])  # (vocabulary,)
    for i in np.argsort(-p)[:3]:
        print(f"4. {model.tokenizer.decode([int(i)])!r} with {p[i]:.3f}")

    # 5. Greedy decoding takes the likeliest and asks again with it appended. This is slow on purpose: it computes all
    #    places anew for each token.
    slow = list(ids)
    for _ in range(6):
        slow.append(int(forward(model.store.weights, slow)[-1].argmax()))
    print("5. the slow way:", repr(model.tokenizer.decode(slow[len(ids) :])))

    # 6. The engine keeps each place's keys and values (the KV cache), so a new token costs one place instead of all.
    #    Its kernels are written in Python and compiled for this CPU. It must say the same.
    fast = model.generate(ids, max_new_tokens=6)
    print("6. the fast way:", repr(fast.text), "- the same ids:", fast.ids == slow[len(ids) :])

    # 7. Temperature divides the scores before softmax: below 1 the likeliest gains, above 1 all come closer together.
    #    The random number of a token depends on seed and place alone, so the same seed gives the same answer, always.
    for temperature in (0.5, 1.5):
        print(f"7. at temperature {temperature} the likeliest has {softmax(logits[-1] / temperature).max():.3f}")

    # 8. All together: the answer, read back from ids to text until the model says that its turn is over.
    print("8.", model.chat(QUESTION, max_new_tokens=60).content)
