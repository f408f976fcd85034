"""Tools that an assistant may call: calculator, Python in a sandbox, search. No torch here."""
