"use strict";
document.querySelectorAll("table[data-sort]").forEach(function (table) {
  table.querySelectorAll("thead th").forEach(function (head, column) {
    var button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.textContent = "";
    head.appendChild(button);
    button.addEventListener("click", function () {
      var rising = head.getAttribute("aria-sort") === "descending";
      table.querySelectorAll("th").forEach(function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      var value = function (row) {
        var cell = row.cells[column], given = cell.getAttribute("data-v");
        return given === null ? cell.textContent : Number(given);
      };
      var body = table.tBodies[0];
      Array.from(body.rows).sort(function (one, other) {
        var a = value(one), b = value(other);
        var order = typeof a === "number" ? a - b : a.localeCompare(b);
        return rising ? order : -order;
      }).forEach(function (row) { body.appendChild(row); });
    });
  });
});
addEventListener("beforeprint", function () {
  document.querySelectorAll("details").forEach(function (fold) { fold.open = true; });
});
