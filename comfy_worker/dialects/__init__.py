"""Other people's requests and answers: pure translation, before and after the one contract.

No switch: a word is known by itself, words of several dialects may stand in one request, and a key of the contract
always wins. Knows the contract and nothing of graphs or ComfyUI.
"""
