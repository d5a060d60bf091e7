"""Learning from judgements: which of two answers is better (DPO, ORPO), or whether one is good (KTO)."""
