//! Made-up tables, right and wrong: each wrong one must be found.

use super::*;

fn leaf(address: u64, physical: u64, flags: &str) -> Mapping {
    let [writable, executable] = ['w', 'x'].map(|flag| flags.contains(flag));
    let bytes = if flags.contains('l') { 0x20_0000 } else { PAGE };
    Mapping { address, physical, bytes, writable, executable, user: true }
}

fn map(leaves: &[Mapping]) -> Map {
    Map { leaves: leaves.to_vec(), tables: vec![0x9000] }
}

const LINKED: u64 = 0xffff_8000_0000;

fn image() -> Image {
    Image {
        addresses: LINKED..LINKED + 0x6000,
        launch: LINKED + 0x1000..LINKED + 0x2000,
        text: LINKED + 0x2000..LINKED + 0x3000,
        data: LINKED + 0x3000,
        guard: LINKED + 0x4000,
        physical: 0x20_0000..0x20_6000,
    }
}

/// As SecVisor's tables must be.
fn own() -> Vec<Mapping> {
    vec![
        leaf(0, 0, "wl"),
        leaf(0x20_6000, 0x20_6000, "w"),
        leaf(LINKED, 0x20_0000, ""),
        leaf(LINKED + 0x2000, 0x20_2000, "x"),
        leaf(LINKED + 0x3000, 0x20_3000, "w"),
        leaf(LINKED + 0x5000, 0x20_5000, "w"),
    ]
}

#[test]
fn each_wrong_page_of_secvisor_is_found() {
    assert!(own_mapping(&map(&own()), &image()).is_ok());
    let wrong = [
        (leaf(LINKED + 0x2000, 0x20_2000, "wx"), "writable and executable"),
        (leaf(LINKED + 0x2000, 0x20_2000, ""), "is executable and no code"),
        (leaf(LINKED + 0x3000, 0x20_3000, "x"), "is executable and no code"),
        (leaf(LINKED + 0x3000, 0x20_3000, ""), "wrong kind"),
        (leaf(LINKED, 0x20_0000, "w"), "wrong kind"),
        (leaf(LINKED + 0x1000, 0x20_1000, ""), "the launch"),
        (leaf(LINKED + 0x4000, 0x20_4000, "w"), "guards the stack"),
        (leaf(LINKED + 0x5000, 0x20_3000, "w"), "where it belongs"),
        (leaf(0x20_2000, 0x20_2000, "w"), "another way"),
        (leaf(0x40_0000, 0x60_0000, "wl"), "one to one"),
        (leaf(0x40_0000, 0x40_0000, "xl"), "outside of the image"),
    ];
    for (wrong, told) in wrong {
        let mut leaves = own();
        leaves.retain(|leaf| leaf.address != wrong.address);
        leaves.push(wrong);
        let error = own_mapping(&map(&leaves), &image()).expect_err(told).to_string();
        assert!(error.contains(told), "{error}");
    }
    let mut leaves = own();
    leaves.retain(|leaf| !leaf.executable);
    assert!(own_mapping(&map(&leaves), &image()).is_err());
}

#[test]
fn the_monitors_answer_is_the_walk() {
    let answer = "0000000000000000: 0000000000000000 X-PDA---W\n\
                  0000000000206000: 0000000000206000 X--DA---W\n\
                  ffffffff80000000: 0000000000200000 X---A----\n\
                  ffffffff80002000: 0000000000202000 ----A----\n\
                  ffffffff80003000: 0000000000203000 X--DA---W\n\
                  ffffffff80005000: 0000000000205000 X--DA---W\n";
    let map = Map { leaves: own(), tables: Vec::new() };
    same_mapping(answer, &map).expect("the same");
    for (from, to) in [("----A----", "----A---W"), ("X---A", "----A"), ("206000: ", "207000: ")] {
        assert!(same_mapping(&answer.replacen(from, to, 1), &map).is_err(), "{from}");
    }
    assert!(same_mapping(answer.trim_end().rsplit_once('\n').expect("lines").0, &map).is_err());
    assert!(same_mapping("", &Map::default()).is_err());
    assert_eq!(register("RAX=1 CR0=80010011\nEFER=0000000000001d00", "EFER").ok(), Some(0x1d00));
    assert_eq!(physical(&map, 0xffff_ffff_8000_3123).ok(), Some(0x20_3123));
    assert!(physical(&map, 0xffff_ffff_8000_4000).is_err());
}

/// Kernel code in frame 200h, data in the region behind, hidden tables in frame 9.
fn both() -> [Vec<Mapping>; 2] {
    let data = |flags| leaf(0x40_0000, 0x40_0000, flags);
    let code = |flags| leaf(0x20_0000, 0x20_0000, flags);
    [vec![code("x"), data("wl")], vec![code(""), data("wxl")]]
}

fn judged(kernel: &[Mapping], user: &[Mapping]) -> Result<()> {
    let mut hidden = Frames::default();
    hidden.add_each("a table", &[0x9000]);
    hidden.add("the image", 0x60_0000..0x60_2000);
    let mut guarded = Frames::default();
    guarded.add("a device", 0xa0_0000..0xa0_1000);
    views([&map(kernel), &map(user)], &hidden, &guarded, &[0x200].into())
}

#[test]
fn each_wrong_leaf_of_a_view_is_found() {
    let [kernel, user] = both();
    judged(&kernel, &user).expect("right");
    let wrong = [
        (0, leaf(0x20_0000, 0x20_0000, "wx"), "and writable"),
        (0, leaf(0x20_0000, 0x20_0000, ""), "not kernel code"),
        (0, leaf(0x40_0000, 0x40_0000, "wxl"), "not approved"),
        (0, leaf(0x60_0000, 0x60_0000, "l"), "the image"),
        (0, leaf(0x9000, 0x9000, ""), "a table"),
        (1, leaf(0x60_1000, 0x60_1000, ""), "the image"),
        (1, leaf(0x20_0000, 0x20_0000, "w"), "and writable"),
        (1, leaf(0x20_0000, 0x20_0000, "x"), "executes"),
        (1, leaf(0x20_0000, 0x20_0000, "wl"), "and writable"),
        (0, leaf(0xa0_0000, 0xa0_0000, "wl"), "a device"),
        (1, leaf(0xa0_0000, 0xa0_0000, "w"), "a device"),
        (1, leaf(0x80_0000, 0x20_0000, "w"), "moves memory"),
    ];
    for (view, wrong, told) in wrong {
        let mut views = both();
        views[view].retain(|leaf| leaf.address != wrong.address);
        views[view].push(wrong);
        let error = judged(&views[0], &views[1]).expect_err(told).to_string();
        assert!(error.contains(told), "{error}");
    }
    let read_only = [leaf(0x20_0000, 0x20_0000, "x")];
    assert!(judged(&read_only, &[]).is_err());
    let nothing = Frames::default();
    assert!(views([&map(&kernel), &map(&user)], &nothing, &nothing, &[0x200].into()).is_err());
}
