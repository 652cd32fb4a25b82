"""The tables and pictures of the documents, from records and catalogs alone: a file for each kind."""
