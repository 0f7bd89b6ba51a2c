"""Every argument of transformers' methods: whether it is used here, has no effect, or is refused, and why.

Promises: the tables are complete, method by method; `docs/python.md` prints them, and a test compares both. Plain data:
`arguments.py` applies it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

_EMPTY: tuple[Any, ...] = ([], (), {})


@dataclass(frozen=True)
class Rule:
    """One argument. `neutral`: values of a refused argument that ask for the behaviour there is, and are accepted."""

    fate: Literal["used", "no effect", "refused"]
    why: str
    neutral: tuple[Any, ...] = ()


def _used(why: str) -> Rule:
    return Rule("used", why)


def _idle(why: str) -> Rule:
    return Rule("no effect", why)


def _but(why: str, *neutral: Any) -> Rule:
    return Rule("refused", why, neutral)


_WHERE = {
    "local_files_only": _used("no network"),
    "trust_remote_code": _but("code from a repository is never executed, so it changes nothing", True, False),
    "revision": _but("the hub's main is fetched; for another revision give a downloaded folder", "main"),
    "token": _but("set HF_TOKEN in the environment, which the hub's client reads", True, False),
    "use_auth_token": _but("set HF_TOKEN in the environment, which the hub's client reads", True, False),
    "cache_dir": _but("set HF_HOME for the hub's cache, PHI4MINI_HOME for the converted models"),
    "force_download": _but("`phi4mini pull --refresh` asks the hub for a newer revision", False),
    "resume_download": _idle("downloads always resume"),
    "proxies": _but("set HTTPS_PROXY in the environment"),
    "subfolder": _but("give the folder itself", ""),
    "code_revision": _idle("code from a repository is never executed"),
    "low_cpu_mem_usage": _idle("the weights are mapped, never read as a whole"),
    "use_fast": _idle("there is one tokenizer, with the ids of both kinds"),
}
_WEIGHTS = {
    "torch_dtype": _used("auto (or left out): q4; float32: f32; bfloat16: bf16; a text or the torch dtype itself"),
    "dtype": _used("as torch_dtype, and before it"),
    "quant": _used("a recipe of phi4mini.load; before a dtype"),
    "kv": _used("as in phi4mini.load"),
    "threads": _used("as in phi4mini.load"),
    "ctx": _used("as in phi4mini.load"),
    "device_map": _but("this runs on the CPU; use 'auto' or 'cpu'", "auto", "cpu", {"": "cpu"}),
    "attn_implementation": _but(
        "attention has one implementation, exact as eager is", "eager", "sdpa", "flash_attention_2"
    ),
    "_attn_implementation": _but(
        "attention has one implementation, exact as eager is", "eager", "sdpa", "flash_attention_2"
    ),
    "use_safetensors": _but("no pickle file is ever opened", True),
    "quantization_config": _but("quant= names a recipe: q4, the default, has 4 bits a weight, q8 has 8"),
    "load_in_4bit": _but("quant='q4' is the default", False),
    "load_in_8bit": _but("use quant='q8'", False),
    "max_memory": _idle("the weights are mapped; `phi4mini estimate` tells the memory"),
    "offload_folder": _idle("the weights are mapped from disk anyway"),
    "offload_state_dict": _idle("the weights are mapped from disk anyway"),
    "config": _but("the numbers are those of the checkpoint"),
    "state_dict": _but("the weights are those of the checkpoint"),
    "variant": _but("give the folder of that variant"),
    "ignore_mismatched_sizes": _but("a checkpoint whose shapes do not fit is refused", False),
    "output_loading_info": _but("a checkpoint that lacks tensors is refused", False),
    "use_cache": _idle("the engine always keeps keys and values"),
    "tp_plan": _but("there is one device, the CPU"),
}
_TOKENIZER = {
    "padding_side": _used("'left' or 'right'"),
    "truncation_side": _used("'left' or 'right'"),
    "model_max_length": _used("what truncation=True cuts to; else the model's context"),
    "bos_token": _used("a token of the vocabulary"),
    "eos_token": _used("a token of the vocabulary"),
    "pad_token": _used("a token of the vocabulary"),
    "unk_token": _used("a token of the vocabulary"),
    "add_bos_token": _but("nothing is added to a text", False),
    "add_eos_token": _but("nothing is added to a text", False),
    "legacy": _idle("there is one way to split a text, that of tokenizer.json"),
    "clean_up_tokenization_spaces": _but("text comes back as it was, as in transformers 5 for BPE", True, False),
    "chat_template": _but("a template is a program and never run; conversations are written by the model's format"),
}
_ENCODING = {
    "text": _used("a text, or a list of texts"),
    "parse_special": _used(
        "ours: True reads control tokens in the text, as transformers does; False keeps them text; left out, the text"
        " of apply_chat_template is read as it was written, any other text stays text"
    ),
    "split_special_tokens": _used("transformers' name for the opposite: True is parse_special=False"),
    "padding": _used("as in transformers"),
    "truncation": _used("as in transformers"),
    "max_length": _used("as in transformers"),
    "padding_side": _used("'left' or 'right', for this call"),
    "pad_to_multiple_of": _used("as in transformers"),
    "return_tensors": _used("'np'; 'pt' where torch is installed; left out: lists"),
    "return_attention_mask": _used("False leaves it out"),
    "add_special_tokens": _idle("nothing is added to a text, as Phi's tokenizer adds nothing"),
    "return_token_type_ids": _but("the models here have none", False),
    "verbose": _idle("there is nothing to be quiet about"),
    "text_pair": _but("the models here take one text"),
    "stride": _but("a text that is cut loses its rest", 0),
    "is_split_into_words": _but("join the words first", False),
    "return_overflowing_tokens": _but("a text that is cut loses its rest", False),
    "return_special_tokens_mask": _but("compare input_ids with all_special_ids", False),
    "return_offsets_mapping": _but("offsets are not kept", False),
    "return_length": _but("take len(input_ids)", False),
}
_TEMPLATE = {
    "conversation": _used("a list of messages, or a list of those"),
    "tools": _used("a list of JSON schemas"),
    "add_generation_prompt": _used("as in transformers"),
    "continue_final_message": _used("the assistant's last message is left open"),
    "tokenize": _used("False: a text that remembers which of its parts are control tokens"),
    "padding": _used("as in transformers"),
    "truncation": _used("as in transformers"),
    "max_length": _used("as in transformers"),
    "return_tensors": _used("'np'; 'pt' where torch is installed; left out: lists"),
    "return_dict": _used(
        "True: a dict; False: ids; left out: ids that also answer as that dict does, so that code for transformers 4"
        " and 5 runs"
    ),
    "return_assistant_tokens_mask": _used("`assistant_masks` in the dict: 1 on what the assistant must produce"),
    "sanitize_control_tokens": _used("False gives content the power to write control tokens, as transformers does"),
    "tokenizer_kwargs": _but("give padding, truncation and max_length themselves", *_EMPTY),
    "documents": _but("put them into a message: the formats known here have no place for them", *_EMPTY),
    "chat_template": _but("a template is a program and never run; conversations are written by the model's format"),
    "enable_thinking": _idle("the formats known here read no variables"),
    "add_special_tokens": _idle("the format writes all control tokens"),
}
_DECODING = {
    "token_ids": _used("an id, ids, or rows of ids"),
    "skip_special_tokens": _used("as in transformers"),
    "clean_up_tokenization_spaces": _TOKENIZER["clean_up_tokenization_spaces"],
    "spaces_between_special_tokens": _but("nothing is put between tokens, as with all fast tokenizers", True, False),
}
_FORWARD = {
    "input_ids": _used("ids: a row or several; lists, NumPy or torch, and results are of that kind"),
    "attention_mask": _used("padding is left out; its logits are 0"),
    "labels": _used("`loss` is the mean over all labels but -100"),
    "use_cache": _idle("no cache is handed out"),
    "return_dict": _idle("the result answers to names and to indices"),
    "token_type_ids": _idle("the models here have none"),
    "num_logits_to_keep": _used("only the last so many positions; 0: all"),
    "logits_to_keep": _used("only the last so many positions; 0: all"),
    "output_attentions": _but("attention is never held as a whole", False),
    "output_hidden_states": _but("hidden states are not handed out", False),
    "past_key_values": _but("the engine keeps its own cache"),
    "position_ids": _but("positions count from the first token that is no padding"),
    "inputs_embeds": _but("a model is asked in ids"),
    "cache_position": _but("the engine keeps its own cache"),
}
_BEAMS = "one answer is drawn at a time, token by token"
_SAMPLERS = "there are temperature, top_k, top_p and min_p"
GENERATING = {
    "inputs": _used("ids: a row or several; lists, NumPy or torch, and the result is of that kind"),
    "input_ids": _used("the same by name"),
    "attention_mask": _used(
        "padding on either side is left out; without a mask, as in transformers, pad ids that"
        " are no end ids are padding"
    ),
    "generation_config": _used("a GenerationConfig or a dict: defaults of this call, before those of the model"),
    "max_new_tokens": _used("as in transformers"),
    "max_length": _used("as in transformers"),
    "min_new_tokens": _used("as in transformers"),
    "min_length": _used("as in transformers"),
    "max_time": _used("seconds, looked at after each token"),
    "stop_strings": _used("as in transformers: the stop string stays in the ids"),
    "tokenizer": _idle("the model has its own, which stop_strings is looked for with"),
    "do_sample": _used("off: greedy, whatever the next four say; on: 1.0, 50 and 1.0 unless given, as in transformers"),
    "temperature": _used("with do_sample"),
    "top_k": _used("with do_sample"),
    "top_p": _used("with do_sample"),
    "min_p": _used("with do_sample"),
    "repetition_penalty": _used("as in transformers"),
    "bad_words_ids": _used("words of one id are never drawn; longer ones are refused"),
    "suppress_tokens": _used("never drawn"),
    "num_return_sequences": _used("with do_sample; a given seed counts up from copy to copy"),
    "eos_token_id": _used("an id or several that end the answer, instead of the model's own; -1: none"),
    "pad_token_id": _used("fills shorter rows"),
    "return_dict_in_generate": _used("a dict with `sequences`"),
    "output_logits": _used("with return_dict_in_generate: one (rows, vocab) a step, from a second pass"),
    "output_scores": _used("the same, where nothing changes the logits: greedy, without a penalty or a minimum"),
    "streamer": _used("one row; put() and end() as transformers calls them"),
    "stopping_criteria": _used("callables of (ids so far (1, n), None), asked after each token of each row"),
    "seed": _used("ours: the same seed gives the same tokens"),
    "rope": _used("ours: LongRoPE's factors: auto, short or long"),
    "use_cache": _idle("the engine always keeps keys and values; the tokens are the same"),
    "cache_implementation": _idle("the engine keeps its own cache; the tokens are the same"),
    "prompt_lookup_num_tokens": _idle("the engine guesses from the prompt by itself; the tokens are the same"),
    "max_matching_ngram_size": _idle("the engine guesses from the prompt by itself; the tokens are the same"),
    "disable_compile": _idle("kernels are compiled once, at loading"),
    "compile_config": _idle("kernels are compiled once, at loading"),
    "bos_token_id": _idle("it would start an empty prompt, which is refused"),
    "length_penalty": _idle("it is of beams only"),
    "early_stopping": _idle("it is of beams only"),
    "remove_invalid_values": _idle("a model that gives NaN raises NumericalError"),
    "renormalize_logits": _idle("probabilities are normalised when a token is drawn"),
    "token_type_ids": _idle("the models here have none"),
    "clean_up_tokenization_spaces": _but("ids are not text", True, False),
    "synced_gpus": _but("there is one device, the CPU", False),
    "num_beams": _but(_BEAMS, 1),
    "num_beam_groups": _but(_BEAMS, 1),
    "diversity_penalty": _but(_BEAMS, 0.0),
    "penalty_alpha": _but(_BEAMS, 0.0, 0),
    "typical_p": _but(_SAMPLERS, 1.0, 1),
    "top_h": _but(_SAMPLERS),
    "epsilon_cutoff": _but(_SAMPLERS, 0.0, 0),
    "eta_cutoff": _but(_SAMPLERS, 0.0, 0),
    "no_repeat_ngram_size": _but("there is repetition_penalty", 0),
    "encoder_repetition_penalty": _but("there is repetition_penalty", 1.0, 1),
    "encoder_no_repeat_ngram_size": _but("there is repetition_penalty", 0),
    "exponential_decay_length_penalty": _but("there is max_new_tokens"),
    "sequence_bias": _but("model.llm.generate has logit_bias"),
    "begin_suppress_tokens": _but("there is suppress_tokens", *_EMPTY),
    "forced_bos_token_id": _but("put the token at the end of the prompt"),
    "forced_eos_token_id": _but("an answer that is cut off ends where it is cut"),
    "decoder_start_token_id": _but("there is no encoder"),
    "guidance_scale": _but("one prompt is read at a time", 1.0, 1),
    "watermarking_config": _but("answers are not marked"),
    "token_healing": _but("a prompt's tokens stay as they are given", False),
    "logits_processor": _but("model.llm.stream_generate takes constraint=, which says what may come next", *_EMPTY),
    "prefix_allowed_tokens_fn": _but("model.llm.stream_generate takes constraint=, which says what may come next"),
    "assistant_model": _but("the engine guesses from the request's own text"),
    "output_attentions": _but("attention is never held as a whole", False),
    "output_hidden_states": _but("hidden states are not handed out", False),
    "past_key_values": _but("the engine keeps its own cache, and finds the prompts it knows by itself"),
    "position_ids": _but("positions count from the first token that is no padding"),
    "cache_position": _but("the engine keeps its own cache"),
    "inputs_embeds": _but("a model is asked in ids"),
    "custom_generate": _but("code from a repository is never executed"),
}
_CALLING = {
    "text_inputs": _used("a text, a list of messages, a list or a generator of those"),
    "return_full_text": _used("True: the prompt and the answer; False: the answer"),
    "return_tensors": _used("True: `generated_token_ids` instead of text"),
    "return_text": _used("True, which is the default"),
    "skip_special_tokens": _used("True unless it is False"),
    "continue_final_message": _used("left out: when the last message is the assistant's, as in transformers"),
    "tools": _used("a list of JSON schemas"),
    "prefix": _used("put before a text"),
    "stop_sequence": _used("as stop_strings"),
    "parse_special": _used("ours: as the tokenizer takes it; for messages True is sanitize_control_tokens=False"),
    "truncation": _used("as in transformers, with max_length"),
    "batch_size": _idle("all that are given as a list are computed together; the tokens are the same"),
    "num_workers": _idle("texts are encoded where they are given"),
    "padding": _idle("rows of different lengths need none"),
    "return_dict_in_generate": _idle("what a pipeline gives is a list of dicts anyway"),
    "output_scores": _but("generate gives them", False),
    "output_logits": _but("generate gives them", False),
    "add_special_tokens": _ENCODING["add_special_tokens"],
    "clean_up_tokenization_spaces": _TOKENIZER["clean_up_tokenization_spaces"],
    "handle_long_generation": _but("nothing of a prompt is ever cut unless truncation asks for it"),
    "documents": _TEMPLATE["documents"],
    "tokenizer_encode_kwargs": _but("give truncation and max_length themselves", *_EMPTY),
}
_PIPELINE = {
    "task": _but("there is text-generation", "text-generation"),
    "model": _used("a CausalLM, or what from_pretrained takes"),
    "tokenizer": _used("a tokenizer, or what from_pretrained takes"),
    "device": _but("this runs on the CPU; use 'cpu' or -1", "cpu", -1, "auto"),
    "model_kwargs": _used("more arguments of from_pretrained"),
    "framework": _but("this is neither torch nor tf; results are what was given", "pt"),
    "feature_extractor": _but("the models here read text only"),
    "image_processor": _but("the models here read text only"),
    "processor": _but("the models here read text only"),
    "pipeline_class": _but("there is text-generation"),
}
METHODS: dict[str, dict[str, Rule]] = {
    "AutoModelForCausalLM.from_pretrained": _WEIGHTS | _WHERE,
    "AutoTokenizer.from_pretrained": _TOKENIZER | _WHERE,
    "AutoConfig.from_pretrained": _WHERE,
    "tokenizer": _ENCODING,
    "decode": _DECODING,
    "apply_chat_template": _TEMPLATE,
    "model": _FORWARD,
    "generate": GENERATING,
    "pipe": _CALLING | {n: r for n, r in GENERATING.items() if n not in (*_CALLING, "inputs", "input_ids")},
    "pipeline": _PIPELINE | {n: r for n, r in (_WEIGHTS | _WHERE).items() if n not in _PIPELINE},
}

# Methods of transformers' models and tokenizers that are not here, and why.
ABSENT = {
    "cuda": "this runs on the CPU",
    "half": "what the weights are is chosen at loading: torch_dtype='bfloat16', or quant='q8'",
    "bfloat16": "what the weights are is chosen at loading: torch_dtype='bfloat16'",
    "compile": "kernels are compiled once, at loading",
    "parameters": "weights are packed and read-only; model.device, model.dtype and model.num_parameters() are here",
    "named_parameters": "weights are packed and read-only; model.num_parameters() is here",
    "state_dict": "weights are packed and read-only",
    "load_state_dict": "weights are packed and read-only",
    "get_input_embeddings": "weights are packed and read-only; tokenizer.add_tokens takes the free rows there are",
    "resize_token_embeddings": "the rows are those of the checkpoint; tokenizer.add_tokens takes the free ones",
    "gradient_checkpointing_enable": "nothing is trained here",
    "save_pretrained": "the files of a model stay as they came; copy its folder",
    "push_to_hub": "nothing is ever sent to the hub",
    "forward": "call the model itself",
    "past_key_values": "the engine keeps its own cache, and finds the prompts it knows by itself",
    "chat_template": "templates are never run; conversations are written by the format that chat_format names",
    "train_new_from_iterator": "nothing is trained here",
    "save_vocabulary": "tokenizer.backend.save_json(path) writes a tokenizer.json",
    "from_config": "a model is opened with the weights of a checkpoint",
}
