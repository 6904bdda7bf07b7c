// word4: what a copying kernel moves at a time: 16 bytes of any 4-byte type.

alias Word = vec4u;
