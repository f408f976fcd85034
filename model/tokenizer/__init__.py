"""Text and conversations to tokens and back; vocabularies trained elsewhere."""
