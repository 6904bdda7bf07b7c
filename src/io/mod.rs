//! Files: safetensors, Hugging Face folders, tokenizers. Bytes and names, no models.
