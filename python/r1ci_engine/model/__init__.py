"""The model: one hand-written decoder, Hugging Face folders, tokenizer, chat template."""
