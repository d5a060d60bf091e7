"""Examples made by a model: questions of passages, instructions from seeds, paraphrases; and a judge over them."""
