"""The key-value part of a GGUF file, with errors that name the key."""


class UnreadableModel(Exception):
    """What a user can mend or must know: the message says what the file holds and what is understood."""


class Metadata:
    def __init__(self, reader):
        self._fields = reader.fields

    def get(self, key, default=None):
        return self._fields[key].contents() if key in self._fields else default

    def require(self, key):
        if key not in self._fields:
            raise UnreadableModel(f'the key "{key}" is missing')
        return self.get(key)
