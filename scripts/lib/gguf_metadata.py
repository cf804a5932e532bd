"""The key-value part of a GGUF file, with errors that name the key."""


class UnreadableModel(Exception):
    """What a user can mend or must know: the message says what the file holds and what is understood."""


class Metadata:
    def __init__(self, reader):
        self._fields = reader.fields

    def get(self, key, default=None):
        return self._fields[key].contents() if key in self._fields else default

    def keys(self):
        return self._fields.keys()

    def number(self, key, default=None):
        """A value that is one number, not a list with one a layer."""
        value = self.require(key) if default is None else self.get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise UnreadableModel(f'"{key}" is no single number, which is all that is supported')
        return value

    def require(self, key):
        if key not in self._fields:
            raise UnreadableModel(f'the key "{key}" is missing')
        return self.get(key)
