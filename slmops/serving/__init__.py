"""HTTP API over the engines: the parts of the OpenAI chat API that a small local model can honour."""
