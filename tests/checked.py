"""How types are checked in tests: an int will do where a float is asked for, as in the language itself."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
