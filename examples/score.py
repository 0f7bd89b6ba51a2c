"""Log-probabilities: which ending the model finds likeliest, and how surprised it is by a text."""

import math

import phi4mini

START, ENDINGS = "The opposite of hot is", (" cold", " warm", " blue", " fast")
TEXT = "The sun rises in the east and sets in the west."

with phi4mini.load("demo", quant="bf16") as model:
    prompt = model.tokenizer.encode(START)
    for ending in ENDINGS:
        ids = prompt + model.tokenizer.encode(ending)
        # logprobs[i] is the log-probability of ids[i + 1], given all ids before it
        score = float(model.logprobs(ids)[len(prompt) - 1 :].sum())
        print(f"{START}{ending}: {score:.2f}")

    # Perplexity: e to the mean surprise of a token. 1 is certainty; a blind guess is the vocabulary's size.
    surprise = -model.logprobs(model.tokenizer.encode(TEXT))
    print(f"perplexity of {TEXT!r}: {math.exp(surprise.mean()):.1f}")
