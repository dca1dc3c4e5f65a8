//! The approval list.

use policy::approval::ApprovalList;
use policy::units::Units;

/// Whatever is accepted keeps the rules that verification relies on.
pub fn list(data: &[u8]) {
    let Ok(list) = ApprovalList::parse(data) else { return };
    let ranges: Vec<_> = list.kernel_ranges().collect();
    for (index, range) in ranges.iter().enumerate() {
        assert!(range.physical.is_page_aligned() && range.filled <= range.physical.length());
        assert!(ranges[..index].iter().all(|other| !other.physical.overlaps(range.physical)));
    }
    let mut names: Vec<_> = list.modules().map(|module| module.name).collect();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    for module in list.modules() {
        assert_eq!(list.find_module(module.name).map(|it| it.number), Some(module.number));
        for init in [false, true] {
            let mut end = 0;
            for section in module.region(init) {
                assert!(section.offset >= end && section.end() <= module.pages(init) * 4096);
                end = section.end();
                let mut field_end = 0;
                for field in section.relocations() {
                    assert!(field.offset >= field_end);
                    field_end = field.offset + field.field.width() as u32;
                    assert!(field_end <= section.size);
                }
            }
        }
    }
    let _ = Units::room(&list);
}
