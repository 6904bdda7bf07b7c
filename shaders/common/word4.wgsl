// word4: the unit that a copying kernel moves: 16 bytes of any 4-byte type.

alias Word = vec4u;
