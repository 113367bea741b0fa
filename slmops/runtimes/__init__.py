"""One face over the engines that run a model: used by teachers, evaluation and serving."""
