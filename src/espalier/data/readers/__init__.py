"""Files -> Documents, one module per family of formats; found by suffix through the entry points `espalier.readers`.

A reader is `read(source: SourceFile) -> Iterator[Document]`. It knows one file's bytes and nothing of the corpus.
"""
