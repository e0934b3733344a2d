"""The bundled captioned world: scenes, drawing, captions, tokenizer and checker."""
