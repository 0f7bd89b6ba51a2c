"""Text as it is made: two conversations read in turns, each with the text that it would have alone."""

import phi4mini

with phi4mini.load("demo", quant="bf16") as model:
    ask = {"temperature": 0.8, "top_p": 0.9, "max_new_tokens": 30}
    streams = [model.stream("Name an animal and say why you like it.", seed=seed, **ask) for seed in (1, 2)]
    while any(pieces := [next(stream, None) for stream in streams]):
        print(*(repr(piece) for piece in pieces), sep=" | ")

    again = model.chat("Name an animal and say why you like it.", seed=1, **ask)
    print("the same seed, alone, says the same:", again.content == streams[0].result.content)
