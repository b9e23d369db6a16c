"""What can go wrong between text and ids.

EncodingError            an observation cannot become ids: the environment's error, it ends the episode, not the program
├── TemplateError        the chat template is unfit
└── TooLongError         a text that cannot fit the context; it is not even encoded
"""


class EncodingError(Exception):
    """An observation cannot be turned into ids; the message says why."""


class TemplateError(EncodingError):
    """A chat template refuses the messages, or does not keep the model's words apart from what follows them."""


class TooLongError(EncodingError):
    """A text of more characters than the longest context could take."""
