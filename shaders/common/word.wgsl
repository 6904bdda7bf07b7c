// word: the unit that a copying kernel moves: 4 bytes of any type.

alias Word = u32;
