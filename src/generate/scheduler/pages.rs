//! The pages of a cache: which are free, which requests hold, and which hold tokens that others may begin with.

use std::collections::HashMap;

/// All pages of a cache.
#[derive(Debug)]
pub(super) struct Pages {
    size: usize,
    free: Vec<u32>,
    /// By page, the requests that hold it.
    holders: Vec<u32>,
    /// By page, what is known of its tokens.
    keys: Vec<Option<Prefix>>,
    /// By page, when it was held last.
    held_at: Vec<u64>,
    known: HashMap<Prefix, Known>,
    clock: u64,
    serial: u64,
}

/// What a whole page holds: its tokens, behind those of another page (0: none).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Prefix {
    before: u64,
    tokens: Box<[u32]>,
}

/// A page that later requests may begin with. Its number is never used again, so that nothing is found behind a page that is gone.
#[derive(Clone, Copy, Debug)]
struct Known {
    page: u32,
    serial: u64,
}

/// The pages of a request, in the order of its tokens.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) pages: Vec<u32>,
    /// How many of them are known, and the number of the last one.
    known: usize,
    last: u64,
}

impl Pages {
    pub(super) fn new(count: usize, size: usize) -> Self {
        Self {
            size,
            free: (0..count as u32).rev().collect(),
            holders: vec![0; count],
            keys: vec![None; count],
            held_at: vec![0; count],
            known: HashMap::new(),
            clock: 0,
            serial: 0,
        }
    }

    /// Pages that nobody holds.
    pub(super) fn available(&self) -> usize {
        self.holders.iter().filter(|holders| **holders == 0).count()
    }

    pub(super) fn held(&self) -> usize {
        self.holders.len() - self.available()
    }

    /// Holds the known pages that a text begins with; at least one token of it is left over.
    pub(super) fn begin(&mut self, tokens: &[u32]) -> Held {
        let mut held = Held::default();
        let whole = &tokens[..tokens.len().saturating_sub(1)];
        for tokens in whole.chunks_exact(self.size) {
            let Some(known) = self.known.get(&Prefix { before: held.last, tokens: tokens.into() }) else { break };
            self.holders[known.page as usize] += 1;
            held.pages.push(known.page);
            (held.last, held.known) = (known.serial, held.known + 1);
        }
        held
    }

    /// Adds a page, if there is one: a free one, or the one that was held the longest ago.
    pub(super) fn extend(&mut self, held: &mut Held) -> bool {
        let unheld = (0..self.holders.len()).filter(|page| self.holders[*page] == 0);
        let page = self.free.pop().or_else(|| unheld.min_by_key(|page| self.held_at[*page]).map(|page| page as u32));
        let Some(page) = page else { return false };
        if let Some(key) = self.keys[page as usize].take() {
            self.known.remove(&key);
        }
        self.holders[page as usize] = 1;
        held.pages.push(page);
        true
    }

    /// Lets others begin with the pages that the first `computed` tokens of a text fill.
    pub(super) fn remember(&mut self, held: &mut Held, tokens: &[u32], computed: usize) {
        while (held.known + 1) * self.size <= computed {
            let tokens = tokens[held.known * self.size..][..self.size].into();
            let (key, page) = (Prefix { before: held.last, tokens }, held.pages[held.known]);
            held.last = match self.known.get(&key) {
                // Another request computed the same at the same time.
                Some(known) => known.serial,
                None => {
                    self.serial += 1;
                    self.keys[page as usize] = Some(key.clone());
                    self.known.insert(key, Known { page, serial: self.serial });
                    self.serial
                }
            };
            held.known += 1;
        }
    }

    /// Gives pages back. The last ones are forgotten first: those before them are of more use.
    pub(super) fn release(&mut self, held: Held) {
        for page in held.pages.into_iter().rev() {
            let at = page as usize;
            self.clock += 1;
            (self.holders[at], self.held_at[at]) = (self.holders[at] - 1, self.clock);
            if self.holders[at] == 0 && self.keys[at].is_none() {
                self.free.push(page);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_begins_with_the_pages_of_another() {
        let mut pages = Pages::new(8, 4);
        let text: Vec<u32> = (0..11).collect();
        let mut first = pages.begin(&text);
        assert!(first.pages.is_empty());
        assert!((0..3).all(|_| pages.extend(&mut first)));
        pages.remember(&mut first, &text, 11);
        let second = pages.begin(&text);
        assert_eq!(second.pages, first.pages[..2], "the third page is not full");
        assert_eq!(pages.begin(&text[..8]).pages.len(), 1, "a token is left over");
        let mut other = text.clone();
        other[5] = 99;
        assert_eq!(pages.begin(&other).pages, first.pages[..1]);
        assert_eq!(pages.begin(&text[4..]).pages.len(), 0, "the same tokens elsewhere");
        pages.release(first);
        assert_eq!((pages.held(), pages.available()), (2, 6));
    }

    #[test]
    fn known_pages_go_when_there_are_no_others_the_last_ones_first() {
        let mut pages = Pages::new(3, 2);
        let text = [1, 2, 3, 4, 5, 6];
        let mut held = pages.begin(&text);
        assert!((0..3).all(|_| pages.extend(&mut held)) && !pages.extend(&mut held));
        pages.remember(&mut held, &text, 6);
        pages.release(held);
        assert_eq!(pages.available(), 3);
        let mut other = pages.begin(&[9]);
        assert!(pages.extend(&mut other));
        assert_eq!(pages.begin(&[1, 2, 3, 4, 5, 6, 7]).pages.len(), 2);
    }

    #[test]
    fn what_two_compute_at_once_is_known_once() {
        let mut pages = Pages::new(4, 2);
        let text = [1, 2, 3];
        let [mut a, mut b] = [pages.begin(&text), pages.begin(&text)];
        for held in [&mut a, &mut b] {
            assert!(pages.extend(held) && pages.extend(held));
        }
        pages.remember(&mut a, &text, 3);
        pages.remember(&mut b, &text, 3);
        pages.release(b);
        let later = pages.begin(&text);
        assert_eq!(later.pages, a.pages[..1]);
        pages.release(a);
        pages.release(later);
        assert_eq!((pages.held(), pages.available()), (0, 4));
    }
}
