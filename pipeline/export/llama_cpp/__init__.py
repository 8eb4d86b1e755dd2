"""A real llama.cpp, where the package ``xllamacpp`` is installed."""
