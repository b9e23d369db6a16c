WORDS = ["a", "b", "go"]
