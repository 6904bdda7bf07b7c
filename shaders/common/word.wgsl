// word: what a copying kernel moves at a time: 4 bytes of any type.

alias Word = u32;
