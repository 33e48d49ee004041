class LearnedEncoder:
    pass
