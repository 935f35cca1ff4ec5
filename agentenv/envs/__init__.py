"""The bundled environments, one package each."""

__all__: list[str] = []
